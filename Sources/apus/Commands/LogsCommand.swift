import Agent
import ArgumentParser
import FoundationEssentials
import Glibc

struct LogsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Show what a container wrote to its standard output and error.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Flag(name: .shortAndLong, help: "Go on with what is written from now on, also on the host it moves to.")
    var follow = false

    func run() async throws {
        var client = try host.client()
        var offset: UInt64 = 0
        while true {
            do {
                let bytes = try await client.log(name, from: offset)
                if !bytes.isEmpty {
                    guard Self.write(output.json ? Self.line(bytes, at: offset) : bytes) else { return }
                    offset += UInt64(bytes.count)
                    continue
                }
                if !follow { return }
            } catch {
                // It moved, or was removed. The log moves with it, so the offset stays.
                let isGone = follow && offset > 0 && error.code == .containerUnknown
                guard isGone, let next = await elsewhere() else { throw error }
                client = next
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    /// The agent of this machine that has the container now.
    private func elsewhere() async -> AgentClient? {
        for host in AgentClient.runningHosts() {
            let client = AgentClient(host: host)
            if (try? await client.container(name)) != nil { return client }
        }
        return nil
    }

    /// A piece of output as one line of JSON. Bytes that are no UTF-8 are shown as such; their offsets stay right.
    private static func line(_ bytes: [UInt8], at offset: UInt64) -> [UInt8] {
        // Made of a number and a text, both of which JSON can say.
        struct Piece: Encodable { let offset: UInt64, text: String }
        return [UInt8](try! JSONEncoder().encode(Piece(offset: offset, text: String(decoding: bytes, as: UTF8.self))))
            + [10]
    }

    /// False when nobody reads any more.
    private static func write(_ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let n = rest.withUnsafeBytes { Glibc.write(1, $0.baseAddress, $0.count) }
            if n < 0 && errno != EINTR { return false }
            rest = rest.dropFirst(max(n, 0))
        }
        return true
    }
}
