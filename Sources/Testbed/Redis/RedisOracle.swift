// What the server must answer, given what it acknowledged.

/// Follows a connection's requests and judges the answers; at the end it asks for everything once more.
struct RedisOracle {
    private enum Expectation {
        case counter
        /// The key's position and the write's number.
        case set(Int, UInt32)
        case get(Int, UInt32)
    }

    private let prefix: String
    private let valueSize: Int
    private let keys: Int
    /// Requests in flight, oldest at `head`.
    private var pending: [Expectation] = []
    private var head = 0
    private var counterSent: Int64 = 0
    private var counter: Int64 = 0
    /// By key: number of the last write sent, and of the last one acknowledged; 0: none.
    private var written: [UInt32]
    private var confirmed: [UInt32]
    private var writes: UInt32 = 0
    private var reads: UInt64 = 0

    /// SETs and INCRs that were acknowledged.
    private(set) var acknowledged = 0
    private(set) var counterErrors = 0
    private(set) var staleReads = 0
    var otherErrors = 0
    /// Acknowledged writes that the final check did not find.
    var lost = 0
    /// The first problems, in words.
    var problems: [String] = []

    init(name: String, keys: Int, valueSize: Int) {
        prefix = "apus:\(name):"
        self.keys = max(1, keys)
        self.valueSize = valueSize
        written = Array(repeating: 0, count: max(1, keys))
        confirmed = written
        pending.reserveCapacity(1 << 16)
    }

    mutating func note(_ problem: String) { if problems.count < 10 { problems.append(problem) } }

    private func key(_ index: Int) -> String { "\(prefix)key:\(index)" }

    /// A write's number, then bytes derived from it.
    private func value(_ write: UInt32) -> String {
        var text = "\(write):"
        var state = UInt64(write)
        while text.utf8.count < valueSize {
            state = ValueGenerator.mix(state &+ 0x9E37_79B9_7F4A_7C15)
            text += String(state, radix: 36)
        }
        return String(text.prefix(valueSize))
    }

    /// Begins with a counter of 0.
    mutating func prepare(_ connection: RedisConnection) throws {
        let reply = try connection.call("SET", prefix + "counter", "0")
        guard reply == .simple("OK") else { throw TestbedError("redis refuses a write: \(reply)") }
    }

    mutating func append(_ kind: ProbeSample.Kind, to output: inout [UInt8]) {
        switch kind {
        case .increment:
            RESPCommand.append("INCR", prefix + "counter", to: &output)
            counterSent += 1
            pending.append(.counter)
        case .set:
            let index = Int(writes) % keys
            writes += 1
            written[index] = writes
            RESPCommand.append("SET", key(index), value(writes), to: &output)
            pending.append(.set(index, writes))
        case .get:
            reads += 1
            let last = Int(writes - 1) % keys
            let index = reads & 1 == 0 ? last : Int(ValueGenerator.mix(reads) % UInt64(min(Int(writes), keys)))
            RESPCommand.append("GET", key(index), to: &output)
            // Answers come in the order of requests on one connection: the last write sent before this is what counts.
            pending.append(.get(index, written[index]))
        }
    }

    mutating func judge(_ reply: RESPReply) {
        let expectation = pending[head]
        head += 1
        if head == pending.count {
            pending.removeAll(keepingCapacity: true)
            head = 0
        }
        switch (expectation, reply) {
        case (.counter, .integer(let value)):
            acknowledged += 1
            if value != counter + 1 {
                counterErrors += 1
                note("the counter went from \(counter) to \(value)")
            }
            counter = value
        case (.set(let index, let write), .simple("OK")):
            acknowledged += 1
            confirmed[index] = write
        case (.get(let index, let write), _):
            if case .bulk(let bytes) = reply, bytes == Array(value(write).utf8) { return }
            staleReads += 1
            note("GET \(key(index)) gave \(reply) instead of write \(write)")
        default:
            otherErrors += 1
            note("unexpected reply \(reply)")
        }
    }

    /// Asks for the counter and every key with an acknowledged write. A write that was sent but not acknowledged may
    /// be there or not.
    mutating func check(_ connection: RedisConnection) throws {
        let reply = try connection.call("GET", prefix + "counter")
        if case .bulk(let bytes) = reply, let value = Int64(String(decoding: bytes, as: UTF8.self)),
            value >= counter, value <= max(counterSent, counter)
        {
        } else {
            lost += 1
            counterErrors += 1
            note("the counter is \(reply) at the end, acknowledged was \(counter)")
        }
        let used = confirmed.indices.filter { confirmed[$0] > 0 }
        for start in stride(from: 0, to: used.count, by: 500) {
            let part = used[start..<min(start + 500, used.count)]
            for index in part { RESPCommand.append("GET", key(index), to: &connection.output) }
            for index in part {
                let reply = try connection.reply()
                if case .bulk(let bytes) = reply {
                    let text = String(decoding: bytes, as: UTF8.self)
                    if text == value(confirmed[index]) || text == value(written[index]) { continue }
                }
                lost += 1
                note("\(key(index)) holds \(reply) at the end, acknowledged was write \(confirmed[index])")
            }
        }
    }
}
