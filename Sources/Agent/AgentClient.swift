// The other end of the API: one function a call.
import Containers
import Engine
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
import NIOCore
import NIOHTTP1
import NIOPosix

/// Speaks to the agent of one host over its unix socket. Every call opens a connection of its own.
///
/// All calls throw `AgentError`; `.agentNotRunning` if there is no agent.
public struct AgentClient: Sendable {
    public let socketPath: String

    public init(socketPath: String) { self.socketPath = socketPath }
    public init(host: String) { socketPath = AgentConfiguration.socketPath(host: host) }

    /// Hosts whose agents can be reached from this machine, sorted: its own, and those to which a testbed of real
    /// machines keeps a connection.
    public static func runningHosts(in folder: String = "/run/apus") -> [String] {
        // A socket file may be left from an agent that was killed: somebody has to listen.
        ((try? Folder.names(folder)) ?? []).sorted().filter { isServed("\(folder)/\($0)/api.sock") }
    }

    /// Whether somebody listens at a unix socket.
    public static func isServed(_ path: String) -> Bool {
        guard path.utf8.count < 108 else { return false }
        let probe = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        // SAFETY: sockaddr_un is one of the layouts that a sockaddr pointer with its length may name.
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(probe.number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        } == 0
    }

    // MARK: - Calls

    public func host() async throws(AgentError) -> HostInfo { try await get("host") }
    /// What has to be added to the host's CLOCK_MONOTONIC to make it ours, and how far that may be off, nanoseconds: of
    /// some answers the one that came soonest.
    public func clockOffset() async throws(AgentError) -> (offset: Int64, error: Int64) {
        // On one connection: what making it takes comes before the answer, and would not be halved.
        try await connected { inbound, outbound in
            var parts = inbound.makeAsyncIterator()
            var best = (offset: Int64(0), error: Int64.max)
            for _ in 0..<9 {
                let asked = monotonicNow()
                try await outbound.write(contentsOf: request(.GET, "host", nil, keepAlive: true))
                let answer = try await answer(from: &parts).body
                let error = (monotonicNow() - asked) / 2
                let there = try decode(answer) as HostInfo
                if error < best.error { best = (asked + error - there.monotonicClock, error) }
            }
            return best
        }
    }
    /// The same as `host`, for agents that may be stopped.
    public func host(within limit: Duration) async throws(AgentError) -> HostInfo {
        do {
            return try await withThrowingTaskGroup(of: HostInfo.self) { group in
                group.addTask { try await host() }
                group.addTask {
                    try await Task.sleep(for: limit)
                    throw AgentError(.unreachable, "the agent at \(socketPath) did not answer in \(limit)")
                }
                defer { group.cancelAll() }
                return try await group.next()!
            }
        } catch { throw AgentError(error) }
    }
    public func containers() async throws(AgentError) -> [ContainerInfo] { try await get("containers") }
    public func container(_ name: String) async throws(AgentError) -> ContainerInfo {
        try await get("containers/\(try plain(name))")
    }
    public func run(_ request: RunRequest) async throws(AgentError) -> ContainerInfo {
        try await call(.POST, "containers", request)
    }
    /// All output from an offset on.
    public func log(_ name: String, from offset: UInt64 = 0) async throws(AgentError) -> [UInt8] {
        try await exchange(.GET, "containers/\(try plain(name))/logs?offset=\(offset)", nil)
    }
    /// The same, piece by piece as it comes, so that a log of any length takes no memory.
    public func log(
        _ name: String, from offset: UInt64, piece: @Sendable @escaping ([UInt8]) throws -> Void
    ) async throws(AgentError) {
        let path = "containers/\(try plain(name))/logs?offset=\(offset)"
        try await connected { inbound, outbound in
            try await outbound.write(contentsOf: request(.GET, path, nil))
            var parts = inbound.makeAsyncIterator()
            var status = 0
            var refusal: [UInt8] = []
            while let part = try await parts.next() {
                switch part {
                case .head(let head): status = Int(head.status.code)
                case .body(let bytes) where status == 200: try piece([UInt8](bytes.readableBytesView))
                case .body(let bytes): refusal += bytes.readableBytesView
                case .end: _ = try success(status, refusal); return
                }
            }
            throw AgentError(.unreachable, "the agent at \(socketPath) ended in the middle of a log")
        }
    }
    public func inspect(_ name: String) async throws(AgentError) -> InspectReport {
        try await get("containers/\(try plain(name))/inspect")
    }
    public func kill(_ name: String, signal: Int32 = SIGTERM) async throws(AgentError) {
        let _: Done = try await call(.POST, "containers/\(try plain(name))/kill", KillRequest(signal: signal))
    }
    public func remove(_ name: String, force: Bool = false) async throws(AgentError) {
        let _: Done = try decode(
            try await exchange(.DELETE, "containers/\(try plain(name))\(force ? "?force" : "")", nil))
    }
    /// Starts a migration and returns its identifier at once.
    public func migrate(_ name: String, to host: String, plan: MigrationPlan) async throws(AgentError) -> String {
        let started: MigrationStarted = try await call(
            .POST, "containers/\(try plain(name))/migrate", MigrateRequest(to: host, plan: plan))
        return started.id
    }
    public func migrations() async throws(AgentError) -> [MigrationInfo] { try await get("migrations") }
    public func migration(_ id: String) async throws(AgentError) -> MigrationInfo {
        try await get("migrations/\(try plain(id))")
    }
    @discardableResult
    public func handOver(_ id: String) async throws(AgentError) -> MigrationInfo {
        try decode(try await exchange(.POST, "migrations/\(try plain(id))/handover", nil))
    }
    @discardableResult
    public func cancel(_ id: String) async throws(AgentError) -> MigrationInfo {
        try decode(try await exchange(.POST, "migrations/\(try plain(id))/cancel", nil))
    }
    @discardableResult
    public func resolve(_ id: String, keep: MigrationControl.Resolution) async throws(AgentError) -> MigrationInfo {
        try await call(.POST, "migrations/\(try plain(id))/resolve", ResolveRequest(keep: keep))
    }

    /// Asks until the migration is over or stays in doubt, and returns its last word.
    ///
    /// - Parameters:
    ///   - patience: how long a doubt has to last: where the other host lives, its guard or agent ends it in a moment.
    ///   - progress: called with every answer.
    public func wait(
        for id: String, every interval: Duration = .milliseconds(100), patience: Duration = .seconds(3),
        progress: (MigrationInfo) -> Void = { _ in }
    ) async throws(AgentError) -> MigrationInfo {
        var doubtSince: ContinuousClock.Instant?
        while true {
            let info = try await migration(id)
            progress(info)
            if info.isOver { return info }
            if info.progress.state != .inDoubt { doubtSince = nil } else if doubtSince == nil { doubtSince = .now }
            if let doubtSince, doubtSince.duration(to: .now) > patience { return info }
            try? await Task.sleep(for: interval)
        }
    }

    // MARK: - HTTP

    private typealias Connection = NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>

    /// A name that is a part of a path as it is.
    private func plain(_ name: String) throws(AgentError) -> String {
        do throws(ContainerError) { try checkName(name, "container") } catch {
            throw AgentError(.badRequest, error.description)
        }
        return name
    }

    private func get<T: Decodable>(_ path: String) async throws(AgentError) -> T {
        try decode(try await exchange(.GET, path, nil))
    }

    private func call<T: Decodable>(_ method: HTTPMethod, _ path: String, _ body: some Encodable)
        async throws(AgentError)
        -> T
    {
        let bytes: [UInt8]
        do { bytes = [UInt8](try JSONEncoder().encode(body)) } catch {
            throw AgentError(.badRequest, "the request cannot be written as JSON: \(error)")
        }
        return try decode(try await exchange(method, path, bytes))
    }

    private func decode<T: Decodable>(_ bytes: [UInt8]) throws(AgentError) -> T {
        do { return try JSONDecoder().decode(T.self, from: Data(bytes)) } catch {
            throw AgentError(
                .failed, "the agent's answer is not understood: \(error)", advice: "use the agent's own version of apus"
            )
        }
    }

    private func request(_ method: HTTPMethod, _ path: String, _ body: [UInt8]?, keepAlive: Bool = false)
        -> [HTTPClientRequestPart]
    {
        var headers = HTTPHeaders([("host", "apus")])
        if !keepAlive { headers.add(name: "connection", value: "close") }
        headers.add(name: "content-length", value: String(body?.count ?? 0))
        var parts: [HTTPClientRequestPart] = [
            .head(.init(version: .http1_1, method: method, uri: "/v1/" + path, headers: headers))
        ]
        if let body { parts.append(.body(.byteBuffer(ByteBuffer(bytes: body)))) }
        return parts + [.end(nil)]
    }

    /// The next answer on a connection.
    private func answer(
        from parts: inout NIOAsyncChannelInboundStream<HTTPClientResponsePart>.AsyncIterator
    ) async throws -> (status: Int, body: [UInt8]) {
        var status = 0
        var answer: [UInt8] = []
        while let part = try await parts.next() {
            switch part {
            case .head(let head): status = Int(head.status.code)
            case .body(let bytes): answer += bytes.readableBytesView
            case .end: return (status, answer)
            }
        }
        throw AgentError(.unreachable, "the agent at \(socketPath) ended before it answered")
    }

    /// One request and its answer, whatever it says.
    func raw(_ method: HTTPMethod, _ path: String, _ body: [UInt8]?) async throws(AgentError) -> (
        status: Int, body: [UInt8]
    ) {
        try await connected { inbound, outbound in
            try await outbound.write(contentsOf: request(method, path, body))
            var parts = inbound.makeAsyncIterator()
            return try await answer(from: &parts)
        }
    }

    /// Opens a connection for what is said on it.
    private func connected<T: Sendable>(
        _ body: (
            NIOAsyncChannelInboundStream<HTTPClientResponsePart>, NIOAsyncChannelOutboundWriter<HTTPClientRequestPart>
        ) async throws -> T
    ) async throws(AgentError) -> T {
        do {
            let connection = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(unixDomainSocketPath: socketPath) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try Connection(wrappingChannelSynchronously: channel)
                    }
                }
            return try await connection.executeThenClose { try await body($0, $1) }
        } catch let error as AgentError {
            throw error
        } catch let error as IOError where [ENOENT, ECONNREFUSED].contains(error.errnoCode) {
            throw AgentError(
                .agentNotRunning, "no agent listens at \(socketPath)", advice: "start one: `apus agent --host NAME`")
        } catch let error as IOError where [EACCES, EPERM].contains(error.errnoCode) {
            throw AgentError(.failed, "the agent's socket \(socketPath) is closed to this user", advice: "run as root")
        } catch {
            throw AgentError(.unreachable, "speaking with the agent at \(socketPath): \(error)")
        }
    }

    private func exchange(_ method: HTTPMethod, _ path: String, _ body: [UInt8]?) async throws(AgentError) -> [UInt8] {
        let (status, answer) = try await raw(method, path, body)
        return try success(status, answer)
    }

    /// The body of an answer that is a success.
    private func success(_ status: Int, _ answer: [UInt8]) throws(AgentError) -> [UInt8] {
        if (200..<300).contains(status) { return answer }
        if let refusal = try? JSONDecoder().decode(ErrorBody.self, from: Data(answer)) { throw refusal.error }
        throw AgentError(.failed, "the agent answered with HTTP status \(status)")
    }
}
