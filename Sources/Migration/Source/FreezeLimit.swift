// How long a container may stand still before the promise.
import LinuxKernel

/// The plan's limit of the freeze, and how the freeze stands to it.
struct FreezeLimit {
    /// Milliseconds; nil: none.
    private let limit: Double?
    /// CLOCK_MONOTONIC nanoseconds at which the container was stopped; 0: it runs.
    var frozenAt: Int64 = 0
    /// The step of the freeze that is being taken.
    var step = ""

    init(_ plan: MigrationPlan) { limit = plan.freezeLimit }

    /// Milliseconds that are left, or `most`, if that is less.
    func left(atMost most: Double) -> Double {
        min(limit.map { max(1, $0 - Double(monotonicNow() - frozenAt) / 1e6) } ?? most, most)
    }

    /// - Throws: `Postponed` when the container has stood still for as long as it may.
    func check() throws {
        guard let limit, Double(monotonicNow() - frozenAt) / 1e6 > limit else { return }
        throw tooLong("the container had stood still for \(Self.text(limit)), its limit, at the step '\(step)'")
    }

    /// Changes that take longer to send than the container may stand still would only stop it in vain.
    func check(lastPass took: Double) throws {
        guard let limit, took > limit else { return }
        throw tooLong(
            "the last changes took \(Self.text(took)) to send, and the container may stand still for \(Self.text(limit))"
        )
    }

    /// Files that have to be compared as a whole with what the destination has may take longer than that, too.
    func check(compared: (names: [String], milliseconds: Double)) throws {
        guard let limit, compared.milliseconds > limit else { return }
        let took = Self.text(compared.milliseconds), others = compared.names.count - 3
        let names = compared.names.prefix(3).joined(separator: ", ") + (others > 0 ? " and \(others) other files" : "")
        throw Postponed(
            why: "nothing tells which parts of \(names) are written to: to compare all of "
                + "it takes \(took), and the container may stand still for \(Self.text(limit))",
            advice: "give it more by --freeze-limit MS, or none; or keep large files on ext4, which tells")
    }

    private func tooLong(_ why: String) -> Postponed {
        Postponed(why: why, advice: "give it more by --freeze-limit MS, or none, or a faster link between the hosts")
    }

    private static func text(_ milliseconds: Double) -> String { "\(Int(milliseconds.rounded(.up))) ms" }
}
