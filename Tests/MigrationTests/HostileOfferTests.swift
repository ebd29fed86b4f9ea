// Offers that ask for more than a container's own world: refused before anything of them is done.
import Containers
import Foundation
import Glibc
import LinuxKernel
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct HostileOfferTests {
    private func withSleeper(_ hosts: TwoHosts, _ body: (RunningContainer) throws -> Void) throws {
        defer { hosts.tearDown() }
        let container = try hosts.run("hostile", "dirtier", ["--memory", "1M", "--rate", "10", "--threads", "1"])
        try body(container)
        #expect(hosts.leftovers(of: container.name) == [])
    }

    @Test func anOffersHooksBindsAndNamespacesAreRefusedByName() throws {
        let hosts = try TwoHosts()
        try withSleeper(hosts) { container in
            let trace = hosts.folder + "/hook-ran"
            let words = try hosts.answer(toOfferOf: container) { offer in
                var tree = try! JSONValue(json: [UInt8](offer.config))
                tree["hooks"] = ["prestart": [["path": "/bin/sh", "args": ["sh", "-c", .string("touch \(trace)")]]]]
                tree["mounts"] = .array(
                    tree["mounts"]!.elements + [
                        ["destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]]
                    ])
                tree["linux"]!["namespaces"] = [["type": "mount"], ["type": "pid", "path": "/proc/1/ns/pid"]]
                offer.config = Data(tree.json())
            }
            #expect(words?.kind == .refused)
            for option in [
                "--allow-hook /bin/sh", "--allow-bind /;", "--allow-namespace /proc/1/ns/pid",
                "--allow-namespace network",
            ] { #expect(words?.message.contains(option) == true, "\(option): \(words?.message ?? "accepted")") }
            #expect(access(trace, F_OK) != 0, "the hook ran")
        }
    }

    @Test func aConnectionThatEndsBeforeItsOfferEndsNothingElse() throws {
        let hosts = try TwoHosts()
        for bytes in [[], [UInt8](repeating: 0, count: 3), [UInt8](repeating: 0xff, count: 64)] {
            let connection = try PeerAddress(hosts.hosts[1].address)!.connect()
            try bytes.withUnsafeBytes { if !$0.isEmpty { try connection.write($0) } }
        }
        // This process serves the host's sessions: it would have ended with a session that trapped.
        try withSleeper(hosts) { container in
            let answer = try hosts.answer(toOfferOf: container) { $0.container = "../other" }
            #expect(answer != nil)
        }
    }

    @Test func aLinkAtAMountPointOfAReceivedRootIsRefused() throws {
        let hosts = try TwoHosts()
        try withSleeper(hosts) { container in
            let host = hosts.hosts[0], target = hosts.folder + "/outside"
            try Folder.create(target)
            let source = try hosts.source(of: container)
            defer { try? source.journal.settle() }
            try source.connection.send(.offer, try Negotiation(source).makeOffer())
            _ = try source.connection.expect(.accepted, WireAccepted.self)
            // A source that has looked, or does not care.
            let trees = try SourceTrees(container, host) {}
            #expect(rename(container.rootfs + "/dev", container.rootfs + "/dev.old") == 0)
            #expect(symlink(target, container.rootfs + "/dev") == 0)
            #expect(
                try ContainerConfig(bundle: hosts.folder + "/bundle-hostile-0")
                    .mountPointObstacles(in: container.rootfs).count > 0)
            try trees.send(root: true, over: source.connection)
            var stage = WireStage()
            stage.processes = [WireProcessOutline.with { ($0.pid, $0.threads) = (1, [1]) }]
            stage.spaces = [WireSpaceLayout()]
            try source.connection.send(.stage, stage)
            var refusal: MigrationError?
            do { _ = try source.connection.expect(.staged, WireStaged.self) } catch {
                refusal = error as? MigrationError
            }
            #expect(
                refusal?.kind == .refused && refusal?.message.contains("mount point /dev: /dev in the") == true,
                "\(String(describing: refusal))")
            #expect(try Folder.names(target) == [], "the runtime worked outside of the root")
        }
    }
}
