// The API over a real socket: what it answers to requests that are wrong.
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
import NIOHTTP1
import Testing

@testable import Agent

@Suite(.enabled(if: isRoot), .timeLimit(.minutes(2))) struct APITests {
    private func error(_ answer: (status: Int, body: [UInt8])) throws -> AgentError {
        try JSONDecoder().decode(ErrorBody.self, from: Data(answer.body)).error
    }

    @Test func hostTellsWhoItIs() async throws {
        try await withAgent { test in
            let host = try await test.client.host()
            #expect(host.name == test.agent.layout.hostName && host.pid == getpid())
            #expect(host.facts.architecture == "x86_64" && host.peers.keys.contains("there"))
            #expect(test.script.recovered.withLock { $0 } == 1)
            var status = stat()
            #expect(stat(test.client.socketPath, &status) == 0 && status.st_mode & 0o777 == 0o600)
        }
    }

    @Test func wrongBodiesAreNamed() async throws {
        try await withAgent { test in
            let cases: [(String, String)] = [
                ("{", "not JSON"), ("", "no body"), ("[]", "not a JSON object"),
                ("{\"name\":\"a\"}", "bundle is missing"),
                ("{\"name\":1,\"bundle\":\"/b\"}", "name is not a String"),
                ("{\"name\":\"a\",\"bundle\":\"/b\",\"colour\":1}", "unknown key \"colour\""),
                (
                    "{\"name\":\"a\",\"bundle\":\"/b\",\"network\":{\"addresses\":[],\"x\":1}}",
                    "unknown key \"network.x\""
                ),
                ("{\"name\":\"../a\",\"bundle\":\"/b\"}", "cannot be a container's name"),
                ("{\"name\":\"a\",\"bundle\":\"b\"}", "not absolute"),
                ("{\"name\":\"a\",\"bundle\":\"/no/such/bundle\"}", "not a bundle"),
            ]
            for (body, words) in cases {
                let answer = try await test.client.raw(.POST, "containers", Array(body.utf8))
                let error = try error(answer)
                #expect(
                    answer.status == 400 && error.code == .badRequest && error.message.contains(words),
                    "\(body): \(error)")
            }
            #expect(try await test.client.containers().isEmpty)
        }
    }

    @Test func tooLargeABodyEndsTheConnection() async throws {
        try await withAgent { test in
            let answer = try await test.client.raw(
                .POST, "containers", [UInt8](repeating: 32, count: HTTPServer.maximumBody + 1))
            #expect(try answer.status == 413 && error(answer).code == .tooLarge)
            #expect(try await test.client.host().pid == getpid())
        }
    }

    @Test func wrongMethodsAndPathsAreNamed() async throws {
        try await withAgent { test in
            for (method, path, status) in [
                (HTTPMethod.DELETE, "host", 405), (.PUT, "containers", 405), (.GET, "containers/a/kill", 405),
                (.POST, "containers/a/logs", 405), (.GET, "nothing", 404), (.GET, "containers/a/b/c", 404),
                (.POST, "migrations/a/stop", 404),
            ] {
                let answer = try await test.client.raw(method, path, nil)
                #expect(answer.status == status, "\(method) \(path)")
                #expect(try error(answer).message.contains("/v1/\(path)"))
            }
        }
    }

    @Test func unknownThingsAreNamed() async throws {
        try await withAgent { test in
            let client = test.client
            #expect(
                await refusal { () throws(AgentError) in try await client.container("nobody") }?.code
                    == .containerUnknown)
            #expect(
                await refusal { () throws(AgentError) in try await client.log("nobody") }?.code == .containerUnknown)
            #expect(
                await refusal { () throws(AgentError) in try await client.remove("nobody") }?.code == .containerUnknown)
            #expect(
                await refusal { () throws(AgentError) in try await client.kill("nobody", signal: 99) }?.code
                    == .badRequest)
            #expect(
                await refusal { () throws(AgentError) in try await client.cancel("nothing") }?.code == .migrationUnknown
            )
            let plan = MigrationPlan(technique: .cold)
            #expect(
                await refusal { () throws(AgentError) in try await client.migrate("nobody", to: "nowhere", plan: plan)
                }?.code
                    == .hostUnknown)
            var wrong = plan
            wrong.maxRounds = 0
            #expect(
                await refusal { () throws(AgentError) in try await client.migrate("nobody", to: "there", plan: wrong) }?
                    .code
                    == .badRequest)
        }
    }

    @Test func withoutAnAgentTheClientSaysSo() async throws {
        let client = AgentClient(socketPath: "/tmp/apus-no-such-socket")
        let error = await refusal { () throws(AgentError) in try await client.host() }
        #expect(error?.code == .agentNotRunning && error?.advice?.contains("apus agent") == true)
    }

    @Test func aSecondAgentOfOneHostIsRefused() async throws {
        try await withAgent { test in
            do {
                _ = try await TestAgent(folder: test.folder)
                Issue.record("a second agent started")
            } catch {
                #expect((error as? AgentError)?.code == .nameTaken)
            }
            let pid = try await test.client.host().pid
            #expect(pid == getpid())
        }
    }

    @Test func connectionsReachTheEngine() async throws {
        try await withAgent { test in
            let connection = try test.agent.configuration.migrationAddress.connect()
            _ = connection
            let served = await eventually { test.script.served.withLock { $0 } == 1 }
            #expect(served)
        }
    }
}
