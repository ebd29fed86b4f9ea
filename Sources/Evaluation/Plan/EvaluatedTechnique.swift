// What a plan compares: the engine's techniques, and whatever else moves the same containers over the same links.
import Migration
import Testbed

/// A technique as plans and results name it. Plans find it whatever its case, with or without hyphens.
public enum EvaluatedTechnique: Hashable, Sendable, CaseIterable {
    /// One of the engine's own.
    case engine(Technique)
    /// The baselines, by runc and CRIU: checkpoint, copy, restore; what is copied before is copied by pre-dumps, as the
    /// engine's technique of that name would.
    case criu(Technique)
    /// Nothing is moved, and the same is measured around an instant: the noise of every figure.
    case control

    public static var allCases: [EvaluatedTechnique] {
        engines + Technique.allCases.map { .criu($0) } + [.control]
    }
    /// The engine's own.
    public static var engines: [EvaluatedTechnique] { Technique.allCases.map { .engine($0) } }

    public static let cold = EvaluatedTechnique.engine(.cold)
    public static let preCopy = EvaluatedTechnique.engine(.preCopy)
    public static let migrror = EvaluatedTechnique.engine(.migrror)
    public static let criuCold = EvaluatedTechnique.criu(.cold)

    /// Its name in plans, results and figures.
    public var name: String {
        switch self {
        case .engine(let technique): technique.rawValue
        case .criu(let technique): "criu-" + technique.rawValue.lowercased()
        case .control: "no-migration"
        }
    }

    public init?(name: String) {
        let plain = { (text: String) in text.lowercased().filter { $0 != "-" } }
        guard let found = Self.allCases.first(where: { plain($0.name) == plain(name) }) else { return nil }
        self = found
    }

    /// What it does before the handover.
    var copy: CopyPhase {
        switch self {
        case .engine(let technique), .criu(let technique): technique.copy
        case .control: .none
        }
    }

    var isCRIU: Bool { if case .criu = self { true } else { false } }

    /// Why it cannot be had on this machine; nil: it can. Its runs are then left out, with this word to it.
    func obstacle() -> String? {
        switch self {
        case .engine, .control: nil
        case .criu(let technique):
            switch Self.thisCRIU {
            case .success(let criu): technique.copy == .none ? nil : criu.obstacleToRounds()
            case .failure(let error): "\(error)"
            }
        }
    }

    /// This machine's CRIU, looked for once.
    static let thisCRIU = Result { try CRIU.find() }
}
