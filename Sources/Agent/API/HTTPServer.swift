// HTTP/1.1 on a unix socket: reads a request whole, answers it from a thread that may block.
import Glibc
import LinuxKernel
import NIOCore
import NIOHTTP1
import NIOPosix

struct APIRequest: Sendable {
    var method: String
    /// The path's parts: "/v1/host" is ["v1", "host"].
    var path: [String]
    var query: [String: String]
    var body: [UInt8]
}

struct APIResponse: Sendable {
    var status: Int
    var type: String
    /// The first piece of the body; without `next`, all of it.
    var body: [UInt8]
    /// Reads the piece of the body that begins at a byte, on a thread that may block; an empty one is its end. It is
    /// sent while it is read, so the body has no limit.
    var next: (@Sendable (_ offset: UInt64) throws -> [UInt8])?
}

/// A server that runs until `stop`.
final class HTTPServer: Sendable {
    typealias Handler = @Sendable (APIRequest) -> APIResponse
    private typealias Connection = NIOAsyncChannel<HTTPServerRequestPart, HTTPServerResponsePart>

    /// The largest body of a request, bytes. No request has more to say than some hundred bytes.
    static let maximumBody = 1 << 20

    private let group: MultiThreadedEventLoopGroup
    private let pool: NIOThreadPool
    private let listener: any Channel
    private let work: Task<Void, Never>

    /// - Parameter tooLarge: the answer to a body above the limit, which is not read further.
    init(socketPath: String, tooLarge: APIResponse, _ handler: @escaping Handler) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        // Calls wait for the runtime; a few may do so side by side.
        let pool = NIOThreadPool(numberOfThreads: 4)
        pool.start()
        let server: NIOAsyncChannel<Connection, Never>
        do {
            server = try await ServerBootstrap(group: group).bind(unixDomainSocketPath: socketPath) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    return try Connection(wrappingChannelSynchronously: channel)
                }
            }
        } catch {
            try? await pool.shutdownGracefully()
            try? await group.shutdownGracefully()
            throw error
        }
        // The folder is closed to others, so there is no moment at which they could connect.
        chmod(socketPath, 0o600)
        work = Task {
            try? await server.executeThenClose { connections in
                try await withThrowingDiscardingTaskGroup { tasks in
                    for try await connection in connections {
                        tasks.addTask { try? await Self.serve(connection, pool, tooLarge, handler) }
                    }
                }
            }
        }
        self.group = group
        self.pool = pool
        listener = server.channel
    }

    func stop() async {
        try? await listener.close()
        work.cancel()
        await work.value
        try? await pool.shutdownGracefully()
        try? await group.shutdownGracefully()
    }

    private static func serve(
        _ connection: Connection, _ pool: NIOThreadPool, _ tooLarge: APIResponse, _ handler: @escaping Handler
    ) async throws {
        try await connection.executeThenClose { inbound, _ in
            var head: HTTPRequestHead?
            var body: [UInt8] = []
            for try await part in inbound {
                switch part {
                case .head(let new):
                    head = new
                    body = []
                case .body(let bytes):
                    if body.count + bytes.readableBytes > maximumBody {
                        return try await write(tooLarge, keepAlive: false, to: connection.channel, pool)
                    }
                    body += bytes.readableBytesView
                case .end:
                    guard let asked = head else { return }
                    let request = APIRequest(asked, body)
                    let response = try await pool.runIfActive { handler(request) }
                    try await write(response, keepAlive: asked.isKeepAlive, to: connection.channel, pool)
                    if !asked.isKeepAlive { return }
                }
            }
        }
    }

    /// Returns when the kernel has all of it: closing a channel throws away what it has not written yet, and an
    /// asynchronous channel's own writer returns before that.
    private static func write(
        _ response: APIResponse, keepAlive: Bool, to channel: any Channel, _ pool: NIOThreadPool
    ) async throws {
        func send(_ part: HTTPServerResponsePart) async throws { try await channel.writeAndFlush(part).get() }
        var headers = HTTPHeaders()
        headers.add(name: "content-type", value: response.type)
        if response.next == nil {
            headers.add(name: "content-length", value: String(response.body.count))
        } else {
            headers.add(name: "transfer-encoding", value: "chunked")
        }
        if !keepAlive { headers.add(name: "connection", value: "close") }
        try await send(
            .head(.init(version: .http1_1, status: .init(statusCode: response.status), headers: headers)))
        var piece = response.body
        var offset: UInt64 = 0
        while !piece.isEmpty {
            try await send(.body(.byteBuffer(ByteBuffer(bytes: piece))))
            guard let next = response.next else { break }
            offset += UInt64(piece.count)
            // Should it fail, the connection breaks off without the body's end, which tells the client.
            let begin = offset
            piece = try await pool.runIfActive { try next(begin) }
        }
        try await send(.end(nil))
    }
}

extension APIRequest {
    fileprivate init(_ head: HTTPRequestHead, _ body: [UInt8]) {
        let parts = head.uri.split(separator: "?", maxSplits: 1)
        method = head.method.rawValue
        path = (parts.first ?? "").split(separator: "/").map(String.init)
        query = [:]
        for pair in (parts.count > 1 ? parts[1] : "").split(separator: "&") {
            let sides = pair.split(separator: "=", maxSplits: 1).map(String.init)
            query[sides[0]] = sides.count > 1 ? sides[1] : ""
        }
        self.body = body
    }
}
