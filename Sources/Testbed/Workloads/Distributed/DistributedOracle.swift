// What the distributed application must answer: each of its services adds what the client can work out by itself.
import DequeModule

/// A message as the services speak it; `Workloads/distributed.h` says who sets what.
struct DistributedMessage: Equatable {
    static let size = 64
    enum Kind: UInt64 { case request = 1, status = 2 }

    var kind = Kind.request.rawValue
    var number: UInt64 = 0
    var session: UInt64 = 0
    var sequence: UInt64 = 0
    var word: UInt64 = 0
    var count: UInt64 = 0
    var digest: UInt64 = 0
    var stored: UInt64 = 0

    private static var fields: [WritableKeyPath<DistributedMessage, UInt64>] {
        [\.kind, \.number, \.session, \.sequence, \.word, \.count, \.digest, \.stored]
    }

    init(_ kind: Kind) { self.kind = kind.rawValue }

    init(_ bytes: ArraySlice<UInt8>) {
        for (place, field) in Self.fields.enumerated() {
            let start = bytes.startIndex + place * 8
            self[keyPath: field] = bytes[start..<start + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
    }

    func append(to bytes: inout [UInt8]) {
        for field in Self.fields { withUnsafeBytes(of: self[keyPath: field].littleEndian) { bytes += $0 } }
    }
}

/// Follows every session, and judges what gateway, worker and store say in each answer, and at the end.
struct DistributedOracle {
    private struct Session {
        var sent: UInt64 = 0
        /// Over the words sent: the worker's, once it has served them all.
        var digest: UInt64 = 0
        var lastNumber: UInt64 = 0
        var expected = Deque<DistributedMessage>()
    }
    private var sessions: [Session]
    private var words: UInt64 = 0
    /// Of each answer.
    private var numbers: [UInt64] = []

    private(set) var answers = 0
    /// Answers in which gateway, worker or store said something else than they must.
    private(set) var wrong: [String: Int] = [:]
    private(set) var problems: [String] = []

    init(sessions count: Int) { sessions = Array(repeating: Session(), count: count) }

    /// The worker's digest after one more word; `mix` of Workloads/support.h adds its constant first.
    static func digest(_ digest: UInt64, _ word: UInt64, _ sequence: UInt64) -> UInt64 {
        mix(digest ^ mix(word &+ sequence))
    }
    static func mix(_ value: UInt64) -> UInt64 { ValueGenerator.mix(value &+ 0x9E37_79B9_7F4A_7C15) }

    /// A session's next request.
    mutating func ask(_ session: Int) -> DistributedMessage {
        words += 1
        var message = DistributedMessage(.request)
        message.session = UInt64(session)
        message.word = ValueGenerator.mix(words)
        sessions[session].sent += 1
        message.sequence = sessions[session].sent
        var expected = message
        expected.stored = sessions[session].digest
        sessions[session].digest = Self.digest(sessions[session].digest, message.word, message.sequence)
        (expected.count, expected.digest) = (message.sequence, sessions[session].digest)
        sessions[session].expected.append(expected)
        return message
    }

    mutating func judge(_ answer: DistributedMessage, of session: Int) {
        answers += 1
        guard let expected = sessions[session].expected.popFirst() else {
            note("gateway", "an answer for session \(session) that nobody asked for")
            return
        }
        let passed = [\DistributedMessage.kind, \.session, \.sequence, \.word].allSatisfy {
            answer[keyPath: $0] == expected[keyPath: $0]
        }
        if !passed || answer.number <= sessions[session].lastNumber {
            note("gateway", "session \(session): \(answer) instead of \(expected)")
        }
        sessions[session].lastNumber = answer.number
        numbers.append(answer.number)
        if answer.count != expected.count || answer.digest != expected.digest {
            note(
                "worker",
                "session \(session): request \(expected.sequence) was its \(answer.count)th, or its digest differs")
        }
        if answer.stored != expected.stored {
            note("store", "session \(session): request \(expected.sequence) found another digest than the last one")
        }
    }

    /// What the services say at the end, when everything was answered.
    ///
    /// - Parameters:
    ///   - status: the answer to a status message.
    ///   - held: by session, the digest that the store holds; nil: none.
    mutating func judgeAtEnd(_ status: DistributedMessage, held: [UInt64?]) {
        let asked = sessions.reduce(0) { $0 + $1.sent }
        let inTurn = numbers.sorted().enumerated().allSatisfy { $0.element == UInt64($0.offset) + 1 }
        if !inTurn || numbers.count != Int(asked) || status.number != asked {
            note(
                "gateway",
                "\(asked) requests were made, it counted \(status.number), or its numbers have a gap or repeat")
        }
        let digest = sessions.enumerated().reduce(UInt64(0)) {
            $1.element.sent == 0 ? $0 : $0 &+ Self.mix(UInt64($1.offset) ^ $1.element.digest)
        }
        if status.count != asked || status.digest != digest {
            note("worker", "\(asked) requests were made, it counted \(status.count), or its digests differ")
        }
        if status.stored != 0 { note("worker", "\(status.stored) of its pages are wrong") }
        for (session, held) in held.enumerated() where (held ?? 0) != sessions[session].digest {
            note("store", "session \(session): holds another digest than the last one at the end")
        }
    }

    mutating func note(_ service: String, _ problem: String) {
        wrong[service, default: 0] += 1
        if problems.count < 10 { problems.append("\(service): \(problem)") }
    }

    var verdicts: [Verdict] {
        let held = [
            ("gateway", "numbers every request once"), ("worker", "counts, digests and pages exact"),
            ("store", "holds what the worker stored last"),
        ]
        return held.map { service, promise in
            let wrong = wrong[service] ?? 0
            return Verdict(
                "\(service) \(promise)", wrong == 0 && answers > 0,
                "\(answers) answers" + (wrong == 0 ? ", all right" : ", \(wrong) wrong"))
        }
    }
}
