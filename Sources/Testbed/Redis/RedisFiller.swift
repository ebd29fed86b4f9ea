// State to migrate: values of a known generator, and the proof afterwards that every one is still there.
import Glibc

/// Fills a redis server and checks what it holds.
public struct RedisFiller: Sendable {
    public let endpoint: RedisEndpoint
    public let generator: ValueGenerator
    /// Number of values.
    public let count: Int
    /// Commands in flight.
    private let batch = 64

    /// As many values as make up `bytes`.
    public init(_ endpoint: RedisEndpoint, bytes: UInt64, generator: ValueGenerator = ValueGenerator()) {
        self.endpoint = endpoint
        self.generator = generator
        count = max(1, Int(bytes) / generator.size)
    }

    public struct Check: Sendable, Codable {
        public var checked = 0
        public var missing = 0
        public var wrong = 0
        /// The first few keys that were missing or wrong.
        public var examples: [String] = []
        public var passed: Bool { checked > 0 && missing == 0 && wrong == 0 }
    }

    private func key(_ index: Int) -> [UInt8] {
        let digits = String(index)
        return Array(("apus:fill:" + String(repeating: "0", count: max(0, 9 - digits.count)) + digits).utf8)
    }

    /// Sets every value; `progress` is told the share done, now and then.
    public func fill(progress: (Double) -> Void = { _ in }) throws {
        try endpoint.run {
            let connection = try RedisConnection(endpoint, timeout: 60)
            let set = Array("SET".utf8)
            for start in stride(from: 0, to: count, by: batch) {
                let end = min(start + batch, count)
                for index in start..<end {
                    RESPCommand.append([set, key(index), generator.value(index)], to: &connection.output)
                }
                for index in start..<end {
                    let reply = try connection.reply()
                    guard reply == .simple("OK") else { throw TestbedError("filling redis: key \(index): \(reply)") }
                }
                if start % (batch * 64) == 0 { progress(Double(end) / Double(count)) }
            }
        }
    }

    /// Compares every `stride`-th value, byte by byte, with what the generator says.
    public func verify(every step: Int = 1) throws -> Check {
        try endpoint.run {
            let connection = try RedisConnection(endpoint, timeout: 60)
            var check = Check()
            let get = Array("GET".utf8)
            let indices = Array(stride(from: 0, to: count, by: max(1, step)))
            for start in stride(from: 0, to: indices.count, by: batch) {
                let part = indices[start..<min(start + batch, indices.count)]
                for index in part { RESPCommand.append([get, key(index)], to: &connection.output) }
                for index in part {
                    let reply = try connection.reply()
                    check.checked += 1
                    switch reply {
                    case .bulk(let bytes) where bytes == generator.value(index): continue
                    case .null: check.missing += 1
                    default: check.wrong += 1
                    }
                    if check.examples.count < 5 { check.examples.append(String(decoding: key(index), as: UTF8.self)) }
                }
            }
            return check
        }
    }
}
