// The API's calls: which request becomes which call of the agent.
import Containers
import Engine
import FoundationEssentials
import LinuxKernel
import Logging
import Migration

/// Serves an agent's API on its unix socket.
final class AgentServer: Sendable {
    private let http: HTTPServer

    init(_ agent: Agent, socketPath: String) async throws {
        let router = Router(agent: agent)
        let limit = AgentError(.tooLarge, "the request's body has more than \(HTTPServer.maximumBody) bytes")
        http = try await HTTPServer(socketPath: socketPath, tooLarge: Router.answer(limit)) { router.answer($0) }
    }

    func stop() async { await http.stop() }
}

/// Every call, synchronous: it runs on a thread that may block.
struct Router: Sendable {
    let agent: Agent

    func answer(_ request: APIRequest) -> APIResponse {
        do {
            return try route(request)
        } catch {
            let error = AgentError(error)
            if error.status >= 500 {
                agent.logger.warning("\(request.method) /\(request.path.joined(separator: "/")): \(error.message)")
            }
            return Self.answer(error)
        }
    }

    static func answer(_ error: AgentError) -> APIResponse { json(ErrorBody(error: error), status: error.status) }

    private static func json(_ value: some Encodable, status: Int = 200) -> APIResponse {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let body = try? encoder.encode(value) else {
            return APIResponse(status: 500, type: "text/plain", body: Array("an answer that is not JSON".utf8))
        }
        return APIResponse(status: status, type: "application/json", body: [UInt8](body))
    }

    private func route(_ request: APIRequest) throws -> APIResponse {
        guard request.path.first == "v1" else { throw unknown(request) }
        let path = request.path.dropFirst().map { $0 }
        if path.count > 1, path[0] == "containers" { agent.migrations.awaitEnd(ofReleased: path[1]) }
        switch path.count {
        case 1 where path[0] == "host":
            return try only(request, "GET") { Self.json(agent.info()) }
        case 1 where path[0] == "containers":
            if request.method == "POST" {
                return Self.json(try agent.containers.run(decodeStrictly(RunRequest.self, request.body)), status: 201)
            }
            return try only(request, "GET", "POST") { Self.json(try agent.allContainers()) }
        case 2 where path[0] == "containers":
            if request.method == "DELETE" {
                try agent.containers.remove(path[1], force: request.query["force"] != nil)
                return Self.json(Done())
            }
            return try only(request, "GET", "DELETE") { Self.json(try agent.container(path[1])) }
        case 3 where path[0] == "containers":
            return try container(path[1], path[2], request)
        case 1 where path[0] == "migrations":
            return try only(request, "GET") { Self.json(agent.migrations.all()) }
        case 2 where path[0] == "migrations":
            return try only(request, "GET") { Self.json(try agent.migrations.info(path[1])) }
        case 3 where path[0] == "migrations":
            return try migration(path[1], path[2], request)
        default:
            throw unknown(request)
        }
    }

    private func container(_ name: String, _ verb: String, _ request: APIRequest) throws -> APIResponse {
        switch verb {
        case "logs":
            return try only(request, "GET") {
                guard let offset = UInt64(request.query["offset"] ?? "0") else {
                    throw AgentError(.badRequest, "offset is not a number of bytes: \(request.query["offset"] ?? "")")
                }
                let log = try agent.containers.log(of: name)
                return APIResponse(status: 200, type: "application/octet-stream", body: try log.piece(from: offset)) {
                    try log.piece(from: offset + $0)
                }
            }
        case "inspect":
            return try only(request, "GET") { Self.json(try agent.inspect(name)) }
        case "kill":
            return try only(request, "POST") {
                try agent.containers.kill(name, signal: try decodeStrictly(KillRequest.self, request.body).signal)
                return Self.json(Done())
            }
        case "migrate":
            return try only(request, "POST") {
                let asked = try decodeStrictly(MigrateRequest.self, request.body)
                return Self.json(MigrationStarted(id: try agent.migrate(name, asked)), status: 202)
            }
        default:
            throw unknown(request)
        }
    }

    private func migration(_ id: String, _ verb: String, _ request: APIRequest) throws -> APIResponse {
        switch verb {
        case "handover": return try only(request, "POST") { Self.json(try agent.migrations.handOver(id)) }
        case "cancel": return try only(request, "POST") { Self.json(try agent.migrations.cancel(id)) }
        case "resolve":
            return try only(request, "POST") {
                Self.json(try agent.migrations.resolve(id, try decodeStrictly(ResolveRequest.self, request.body).keep))
            }
        default: throw unknown(request)
        }
    }

    private func only(_ request: APIRequest, _ methods: String..., call: () throws -> APIResponse) throws -> APIResponse
    {
        // The last branch of a resource: its other methods have been served above.
        guard request.method == methods[0] else {
            throw AgentError(
                .methodNotAllowed, "/\(request.path.joined(separator: "/")) has no method \(request.method)",
                advice: "it has \(methods.joined(separator: " and "))")
        }
        return try call()
    }

    private func unknown(_ request: APIRequest) -> AgentError {
        AgentError(.notFound, "the API has no /\(request.path.joined(separator: "/"))")
    }
}
