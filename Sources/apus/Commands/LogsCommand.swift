import Agent
import ArgumentParser
import FoundationEssentials
import Glibc
import Synchronization

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
        let shown = Shown()
        while true {
            do {
                try await client.log(name, from: shown.bytes) { [json = output.json] bytes in
                    let isRead = Self.write(json ? Self.line(bytes, at: shown.bytes) : bytes)
                    try shown.note(bytes.count, isRead: isRead)
                }
                if !follow { return }
            } catch {
                if shown.isUnread { return }
                // It moved, or was removed. The log moves with it, so the offset stays.
                let isGone = follow && shown.bytes > 0 && error.code == .containerUnknown
                guard isGone, let next = await elsewhere() else { throw error }
                client = next
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    /// How far the output has been shown.
    private final class Shown: Sendable {
        private let state = Mutex((bytes: UInt64(0), isUnread: false))
        var bytes: UInt64 { state.withLock { $0.bytes } }
        /// Nobody reads our output any more.
        var isUnread: Bool { state.withLock { $0.isUnread } }

        func note(_ count: Int, isRead: Bool) throws {
            state.withLock { $0 = ($0.bytes + UInt64(count), !isRead) }
            if !isRead { throw AgentError(.failed, "nobody reads the output any more") }
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
