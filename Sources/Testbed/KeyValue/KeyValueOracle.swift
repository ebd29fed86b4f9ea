// What a key-value store must answer, given what it acknowledged.

/// Judges every answer. A key's writes are numbered and all travel on one connection, so the store applies them in
/// their order; reads come on any connection. A read must give a value that some write of this key made, and none
/// older than the last write that was acknowledged, or seen by another read, before the read was sent.
struct KeyValueOracle {
    let records: KeyValueRecords
    /// By key: number of the last write sent, and of the newest one known to be in the store; 0: none.
    private var sent: [UInt32]
    private var known: [UInt32]

    private(set) var acknowledged = 0
    private(set) var reads = 0
    /// Reads that gave an older value, a value that nobody wrote, or none.
    private(set) var stale = 0
    private(set) var foreign = 0
    private(set) var missing = 0
    /// Keys whose acknowledged writes were not there at the end.
    private(set) var lost = 0
    private(set) var checked = 0
    var otherErrors = 0
    /// The first problems, in words.
    private(set) var problems: [String] = []

    init(keys: Int, records: KeyValueRecords = KeyValueRecords()) {
        self.records = records
        sent = Array(repeating: 0, count: keys)
        known = sent
    }

    var keys: Int { sent.count }

    mutating func note(_ problem: String) { if problems.count < 10 { problems.append(problem) } }

    /// A write of a key that is about to be sent: its number.
    mutating func write(_ key: Int) -> UInt32 {
        sent[key] += 1
        return sent[key]
    }

    mutating func acknowledge(_ key: Int, _ version: UInt32) {
        acknowledged += 1
        known[key] = max(known[key], version)
    }

    /// What a read that is sent now must give at least.
    func least(_ key: Int) -> UInt32 { known[key] }

    /// A read's answer.
    ///
    /// - Parameters:
    ///   - value: nil: the store does not have the key.
    ///   - least: what `least` said when the read was sent.
    mutating func judge(_ value: [UInt8]?, of key: Int, least: UInt32) {
        reads += 1
        switch verdict(value, of: key, least: least) {
        case .right: return
        case .stale(let version):
            stale += 1
            note("\(KeyValueRecords.key(key)) gave write \(version), \(least) was acknowledged before")
        case .foreign:
            foreign += 1
            note("\(KeyValueRecords.key(key)) gave what nobody wrote")
        case .missing:
            missing += 1
            note("\(KeyValueRecords.key(key)) is gone, write \(least) was acknowledged")
        }
    }

    /// What a key holds at the end, when nothing is in flight any more.
    mutating func judgeAtEnd(_ value: [UInt8]?, of key: Int) {
        checked += 1
        let verdict = verdict(value, of: key, least: known[key])
        if case .right = verdict { return }
        lost += 1
        note("\(KeyValueRecords.key(key)) at the end: \(verdict), write \(known[key]) was acknowledged")
    }

    private enum Judgement { case right, stale(UInt32), foreign, missing }

    private mutating func verdict(_ value: [UInt8]?, of key: Int, least: UInt32) -> Judgement {
        guard let value else { return least == 0 ? .right : .missing }
        guard let version = records.version(value, of: key), version <= sent[key] else { return .foreign }
        if version < least { return .stale(version) }
        known[key] = max(known[key], version)
        return .right
    }

    var verdicts: [Verdict] {
        let wrong = stale + foreign + missing
        return [
            Verdict(
                "every read exact and new enough", wrong == 0 && otherErrors == 0,
                "\(reads) reads, \(stale) stale, \(foreign) foreign, \(missing) missing"
                    + (otherErrors > 0 ? ", \(otherErrors) other errors" : "")),
            Verdict(
                "every acknowledged write present", lost == 0 && checked == keys,
                "\(acknowledged) acknowledged, \(checked) of \(keys) keys checked, \(lost) wrong"),
        ]
    }
}
