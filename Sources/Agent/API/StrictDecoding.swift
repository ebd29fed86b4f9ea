// Requests are decoded strictly: a key that nobody reads is a mistake, not a remark.
import Containers
import FoundationEssentials
import Migration

/// A request's body, with the keys it may have.
protocol Request: Decodable {
    /// Allowed keys of the body's objects by their path ("" is the body itself).
    static var keys: [String: Set<String>] { get }
}

extension RunRequest: Request {
    static let keys = ["": ["name", "bundle", "network"] as Set, "network": ["mac", "addresses", "gateway"]]
}
extension KillRequest: Request {
    static let keys = ["": ["signal"] as Set]
}
extension MigrateRequest: Request {
    static let keys = [
        "": ["to", "plan"] as Set,
        "plan": [
            "technique", "handover", "readyWithin", "runUp", "maxRounds", "roundInterval", "waitInterval", "stopPages",
            "stopGrowth", "eventPages", "minSpacing", "events", "postponeLimit", "freezeLimit", "accept",
        ],
    ]
}
extension ResolveRequest: Request {
    static let keys = ["": ["keep"] as Set]
}

func decodeStrictly<T: Request>(_ type: T.Type, _ body: [UInt8]) throws(AgentError) -> T {
    let tree: JSONValue
    do { tree = try JSONValue(json: body) } catch {
        throw AgentError(
            .badRequest, body.isEmpty ? "the request has no body" : "the request's body is not JSON (\(error))")
    }
    guard case .object = tree else { throw AgentError(.badRequest, "the request's body is not a JSON object") }
    for (path, allowed) in T.keys {
        guard case .object(let object)? = path.isEmpty ? tree : tree[path] else { continue }
        for (key, _) in object where !allowed.contains(key) {
            throw AgentError(
                .badRequest, "the request has an unknown key \"\(path.isEmpty ? "" : path + ".")\(key)\"",
                advice: "keys are \(allowed.sorted().joined(separator: ", "))")
        }
    }
    do { return try JSONDecoder().decode(type, from: Data(body)) } catch {
        throw AgentError(.badRequest, "the request's body does not fit: \(describe(error))")
    }
}

private func describe(_ error: any Error) -> String {
    func path(_ context: DecodingError.Context) -> String {
        context.codingPath.map(\.stringValue).joined(separator: ".")
    }
    guard let error = error as? DecodingError else { return "\(error)" }
    switch error {
    case .keyNotFound(let key, let context):
        return "\((context.codingPath + [key]).map(\.stringValue).joined(separator: ".")) is missing"
    case .typeMismatch(let type, let context): return "\(path(context)) is not a \(type)"
    case .valueNotFound(_, let context): return "\(path(context)) is null"
    case .dataCorrupted(let context): return "\(path(context)): \(context.debugDescription)"
    @unknown default: return "\(error)"
    }
}
