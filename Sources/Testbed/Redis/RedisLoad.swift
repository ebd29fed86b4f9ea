// Load for benchmarks: what a redis server can do, and how long its answers take meanwhile.
import CLinux
import Glibc
import Histogram
import LinuxKernel

/// Loads a redis server with GETs and SETs over several connections from one thread.
public struct RedisLoad: Sendable {
    public enum Mode: Sendable {
        /// Every connection keeps this many requests in flight: finds the saturated rate.
        case closed(pipeline: Int)
        /// Requests a second over all connections, whether answers come or not; latency counts from the instant at
        /// which a request was due.
        case open(rate: Double)
    }
    public var endpoint: RedisEndpoint
    public var mode: Mode
    public var connections = 16
    /// Share of GETs, 0...1; the rest are SETs.
    public var reads = 0.5
    public var keys = 10_000
    public var valueSize = 64

    public init(_ endpoint: RedisEndpoint, _ mode: Mode) {
        self.endpoint = endpoint
        self.mode = mode
    }

    public struct Result: Sendable, Codable {
        public var requests: UInt64 = 0
        public var errors: UInt64 = 0
        public var seconds = 0.0
        /// Requests a second.
        public var throughput = 0.0
        /// Milliseconds.
        public var mean = 0.0
        public var p50 = 0.0
        public var p99 = 0.0
        public var p999 = 0.0
        public var slowest = 0.0
    }

    private final class Client {
        let connection: RedisConnection
        /// Instants from which the requests in flight are counted, oldest at `head`.
        var due: [Int64] = []
        var head = 0
        var inFlight: Int { due.count - head }
        init(_ connection: RedisConnection) { self.connection = connection }

        func answered() -> Int64 {
            defer {
                head += 1
                if head == due.count {
                    due.removeAll(keepingCapacity: true)
                    head = 0
                }
            }
            return due[head]
        }
    }

    /// Loads for `seconds`, the first tenth of which (at most one second) warms up and is not counted.
    public func run(seconds: Double) throws -> Result {
        try endpoint.run { try load(seconds) }
    }

    private func load(_ seconds: Double) throws -> Result {
        _ = clx_prctl(29 /* PR_SET_TIMERSLACK */, 1, 0, 0, 0)
        let clients = try (0..<max(1, connections)).map { _ in Client(try RedisConnection(endpoint, timeout: 10)) }
        let commands = makeCommands()
        var random: UInt64 = 42
        func command() -> [UInt8] {
            random &+= 0x9E37_79B9_7F4A_7C15
            let word = ValueGenerator.mix(random)
            let index = Int(word >> 32) % keys
            return Double(word & 0xFFFF) / 65536 < reads ? commands.get[index] : commands.set[index]
        }
        let start = monotonicNow()
        let counted = start + Int64(min(1, seconds / 10) * 1e9)
        let end = start + Int64(seconds * 1e9)
        var next = Double(start)
        var turn = 0
        var histogram = Histogram<UInt64>(numberOfSignificantValueDigits: .two)
        var result = Result()
        var entries = clients.map { pollfd(fd: $0.connection.descriptor.number, events: Int16(POLLIN), revents: 0) }
        var now = start
        while now < end || clients.contains(where: { $0.inFlight > 0 }) && now < end + 5_000_000_000 {
            var pause: Int64 = 10_000_000
            if now < end {
                switch mode {
                case .closed(let pipeline):
                    for client in clients where client.inFlight == 0 {
                        for _ in 0..<max(1, pipeline) {
                            client.connection.output += command()
                            client.due.append(now)
                        }
                    }
                case .open(let rate):
                    while Int64(next) <= now {
                        let client = clients[turn % clients.count]
                        turn += 1
                        client.connection.output += command()
                        client.due.append(Int64(next))
                        next += 1e9 / rate
                    }
                    pause = max(0, Int64(next) - now)
                }
            }
            for (index, client) in clients.enumerated() {
                if !client.connection.output.isEmpty { try client.connection.flush(blocking: false) }
                entries[index].events = Int16(POLLIN | (client.connection.output.isEmpty ? 0 : POLLOUT))
            }
            let ready = clx_poll(&entries, UInt32(entries.count), pause)
            now = monotonicNow()
            if ready <= 0 { continue }
            for (index, client) in clients.enumerated() {
                guard entries[index].revents & Int16(POLLIN | POLLERR | POLLHUP) != 0 else { continue }
                try client.connection.fill(blocking: false)
                now = monotonicNow()
                while let isError = try client.connection.skipReply() {
                    let due = client.answered()
                    if now < counted || now > end { continue }
                    result.requests += 1
                    if isError { result.errors += 1 }
                    histogram.record(UInt64(max(0, now - due)))
                }
            }
        }
        let left = clients.reduce(0) { $0 + $1.inFlight }
        guard left == 0 else { throw TestbedError("\(left) requests without an answer 5 s after the load's end") }
        result.seconds = Double(end - counted) / 1e9
        result.throughput = Double(result.requests) / result.seconds
        result.mean = histogram.mean / 1e6
        result.p50 = Double(histogram.valueAtPercentile(50)) / 1e6
        result.p99 = Double(histogram.valueAtPercentile(99)) / 1e6
        result.p999 = Double(histogram.valueAtPercentile(99.9)) / 1e6
        result.slowest = Double(histogram.max) / 1e6
        return result
    }

    private func makeCommands() -> (get: [[UInt8]], set: [[UInt8]]) {
        let generator = ValueGenerator(seed: 99, size: valueSize)
        return (
            (0..<keys).map { index in
                var bytes: [UInt8] = []
                RESPCommand.append("GET", "apus:load:\(index)", to: &bytes)
                return bytes
            },
            (0..<keys).map { index in
                var bytes: [UInt8] = []
                RESPCommand.append(
                    [Array("SET".utf8), Array("apus:load:\(index)".utf8), generator.value(index)], to: &bytes)
                return bytes
            }
        )
    }
}
