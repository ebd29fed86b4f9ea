// A rate on an interface by tc's htb.
import FoundationEssentials

enum Shaper {
    /// Gives what leaves by an interface the rate of a quality, and its queue if it names one; unlimited: no shaper. A
    /// change of the rate alone keeps what waits.
    static func apply(_ quality: LinkQuality, to end: LinkEnd) throws {
        let link = end.interface
        let stands = try qdisc(of: end) != nil
        guard let rate = quality.rate.bitsPerSecond else {
            if stands { try runProgram("tc", ["qdisc", "del", "dev", link, "root"], namespace: end.namespace) }
            return
        }
        let lines = (stands ? "" : shaper(on: link)) + shape(rate, quality.queue, on: link)
        try runProgram("tc", ["-batch", "-"], input: lines, namespace: end.namespace)
    }

    /// The same for many new interfaces of a namespace, at once.
    static func begin(_ interfaces: [(name: String, quality: LinkQuality)], in namespace: NamedNetwork) throws {
        let lines = interfaces.compactMap { name, quality in
            quality.rate.bitsPerSecond.map { shaper(on: name) + shape($0, quality.queue, on: name) }
        }
        guard !lines.isEmpty else { return }
        try runProgram("tc", ["-batch", "-"], input: lines.joined(), namespace: namespace)
    }

    private static func shaper(on link: String) -> String { "qdisc add dev \(link) root handle 1: htb default 1\n" }

    private static func shape(_ rate: UInt64, _ queue: UInt64?, on link: String) -> String {
        let shape = "rate \(rate)bit burst \(burst(rate))b cburst \(burst(rate))b quantum 65536"
        return "class replace dev \(link) parent 1: classid 1:1 htb \(shape)\n"
            + (queue.map { "qdisc replace dev \(link) parent 1:1 handle 10: bfifo limit \($0)\n" } ?? "")
    }

    /// What left by an interface since its shaper was made; nothing is counted without one.
    static func counters(_ end: LinkEnd) throws -> LinkCounters {
        var counters = LinkCounters()
        if let found = try qdisc(of: end) {
            (counters.frames, counters.bytes, counters.overflowed) = (found.packets, found.bytes, found.drops)
        }
        return counters
    }

    private struct Qdisc: Decodable {
        var kind: String
        var bytes: UInt64
        var packets: UInt64
        var drops: UInt64
    }
    private static func qdisc(of end: LinkEnd) throws -> Qdisc? {
        let text = try runProgram(
            "tc", ["-s", "-j", "qdisc", "show", "dev", end.interface], namespace: end.namespace)
        return try JSONDecoder().decode([Qdisc].self, from: Data(text.utf8)).first { $0.kind == "htb" }
    }

    /// A bucket below 128 kB misses the rate at 1 Gbit/s: it must hold what passes between two timer ticks.
    private static func burst(_ rate: UInt64) -> UInt64 { max(131_072, rate / 8 / 1000 * 2) }
}
