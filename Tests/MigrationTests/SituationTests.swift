// Bad situations, each with real parts: the move ends with an error that says what, where and what to do; the source
// runs on with its memory intact, and nothing is left at the destination.
import CLinux
import Containers
import Foundation
import Glibc
import LinuxKernel
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct SituationTests {
    private static let dirtier = ["--memory", "8M", "--rate", "2000", "--threads", "2"]
    /// A dirtier on the first of two hosts.
    private func withDirtier(_ hosts: TwoHosts, _ body: (RunningContainer) throws -> Void) throws {
        defer { hosts.tearDown() }
        let container = try hosts.run("sit", "dirtier", Self.dirtier)
        try hosts.waitUntilReady(container)
        try body(container)
    }

    /// Moves and expects that it cannot be; then both hosts have to be as they were.
    private func expectRefusal(
        _ hosts: TwoHosts, _ container: RunningContainer, _ kind: MigrationError.Kind = .refused, words: [String],
        _ technique: Technique = .preCopy
    ) throws {
        let error = hosts.failure(of: container, MigrationPlan(technique: technique))
        #expect(error?.kind == kind, "\(String(describing: error))")
        let text = "\(error?.message ?? "") \(error?.advice ?? "")"
        for word in words { #expect(text.contains(word), "\(word) is not in: \(text)") }
        try expectUnharmed(hosts, container)
    }

    private func expectUnharmed(_ hosts: TwoHosts, _ container: RunningContainer) throws {
        #expect(hosts.traces(of: container) == [])
        #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
        #expect(hosts.leftovers(of: container.name) == [])
    }

    // MARK: - Space

    @Test func noSpaceForTheRootFileSystem() throws {
        let hosts = try TwoHosts(destinationSpace: "size=300k")
        try withDirtier(hosts) {
            try expectRefusal(hosts, $0, words: ["test-", "rootfs needs", "MiB free", "make room there"])
        }
    }

    @Test func noInodesForTheRootFileSystem() throws {
        let hosts = try TwoHosts(destinationSpace: "size=8m,nr_inodes=14")
        try withDirtier(hosts) {
            try expectRefusal(hosts, $0, words: ["rootfs needs", "inodes", "remove files there"])
        }
    }

    /// Room for the container, but not for a second copy of its files in the cache.
    @Test func roomForOneCopyIsEnough() throws {
        let hosts = try TwoHosts(destinationSpace: "size=1600k")
        try withDirtier(hosts) { container in
            let (_, moved) = try hosts.migrate(container, MigrationPlan(technique: .cold))
            #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        }
    }

    /// The disk fills up while the container is copied: what the container wrote meanwhile does not fit.
    @Test func spaceRunsOutInTheMiddle() throws {
        let hosts = try TwoHosts(destinationSpace: "size=8m")
        try withDirtier(hosts) { container in
            var plan = MigrationPlan(technique: .preCopy)
            plan.handover = .atTrigger
            let error = hosts.failure(of: container, plan) { control in
                // No fault of these hosts: the file system is filled, as other tenants do.
                let filler = try FileDescriptor(
                    opening: hosts.hosts[1].layout.stateFolder + "/filler", O_WRONLY | O_CREAT)
                let megabyte = [UInt8](repeating: 1, count: 1 << 20)
                while (try? megabyte.withUnsafeBytes { try filler.write($0) }) != nil {}
                let log = try FileDescriptor(
                    opening: hosts.hosts[0].layout.container(container.name).log, O_WRONLY | O_APPEND)
                try [UInt8](repeating: 10, count: 1 << 20).withUnsafeBytes { try log.write($0) }
                control.triggerHandover()
            }
            #expect(
                error?.kind == .refused
                    && error?.message.contains("output to \(hosts.hosts[1].layout.stateFolder)") == true,
                "\(String(describing: error))")
            #expect(error?.advice?.contains(hosts.hosts[1].name) == true)
            try expectUnharmed(hosts, container)
        }
    }

    @Test func noMemory() throws {
        let hosts = try TwoHosts()
        try withDirtier(hosts) { container in
            let words = try hosts.answer(toOfferOf: container) { $0.residentBytes = 1 << 50 }
            #expect(
                words?.kind == .refused && words?.message.contains("MiB of memory available") == true,
                "\(String(describing: words))")
            try expectUnharmed(hosts, container)
        }
    }

    // MARK: - What the destination is

    @Test func nameTaken() throws {
        let hosts = try TwoHosts()
        try withDirtier(hosts) { container in
            let other = try hosts.run(container.name, "dirtier", Self.dirtier, on: 1)
            try hosts.waitUntilReady(other, on: 1)
            let error = hosts.failure(of: container, MigrationPlan(technique: .migrror))
            #expect(
                error?.kind == .refused && error?.message.contains("apus rm --host \(hosts.hosts[1].name) sit") == true)
            #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
            #expect(try hosts.verdict(other, on: 1).contains("\"oracle\":\"ok\""))
        }
    }

    /// A journal that could not be settled names a container that has come back since: it is let alone, whoever comes
    /// to settle it.
    @Test(arguments: [JournalHeader.Role.source, .destination]) func oldJournal(_ role: JournalHeader.Role) throws {
        let hosts = try TwoHosts()
        try withDirtier(hosts) { container in
            let host = hosts.hosts[0]
            let gone = try #require(Int32(try Subprocess.run(["sh", "-c", "echo $$"]).text.filter(\.isNumber)))
            let (journal, _) = try host.openJournal(
                JournalHeader(
                    migration: "old", role: role, container: container.name, pid: gone, startTime: 1,
                    peer: hosts.hosts[1].address, agent: getpid()))
            try journal.write(.madeContainer)
            try journal.state(.promised)
            try journal.write(.resolved(role == .source ? .released : .aborted))
            let found = try #require(OpenJournal(path: journal.path))
            switch role {
            case .source: _ = try Repair.source(found, host)
            case .destination:
                #expect(try Repair.destination(found, host, prompt: false, decided: {}) == .aborted)
                Recovery.forget("old", in: host.journals)
            }
            #expect(access(journal.path, F_OK) != 0 || role == .destination)
            found.settle()
            try expectUnharmed(hosts, container)
        }
    }

    @Test func noRuntime() throws {
        let hosts = try TwoHosts(runtime: "/no/such/runc")
        try withDirtier(hosts) {
            try expectRefusal(hosts, $0, words: [hosts.hosts[1].name, "/no/such/runc", "install it"])
        }
    }

    @Test func olderRuntime() throws {
        let folder = "/tmp/apus-runc-\(getpid())"
        try Folder.create(folder)
        defer { try? Folder.remove(folder) }
        let program = folder + "/runc"
        try """
        #!/bin/sh
        case "$*" in *--version) echo "runc version 0.9.3"; exit ;; esac
        exec runc "$@"
        """.write(toFile: program, atomically: true, encoding: .utf8)
        chmod(program, 0o755)
        let hosts = try TwoHosts(runtime: program)
        try withDirtier(hosts) {
            try expectRefusal(hosts, $0, words: ["made by runc 1.", "this host has 0.9.3", "or newer"])
        }
    }

    @Test(arguments: 0..<4) func anotherKernelOrProcessor(_ which: Int) throws {
        let hosts = try TwoHosts(
            sourceFacts: {
                // An offer as an older kernel, or another processor, would make it.
                if which == 0 { ($0.release, $0.vdso) = ("6.1.0-18-amd64", VDSO(digest: "1", layout: ["[vdso] 8192"])) }
                if which == 1 { $0.processorFeatures.append("amx_tile") }
                if which == 2 { $0.missing = ["PAGEMAP_SCAN"] }
            },
            destinationFacts: { if which == 3 { $0.missing = ["PAGEMAP_SCAN"] } })
        let words = [
            ["refuses", "different vDSOs (6.1.0-18-amd64 on the source", "same kernel build"],
            ["refuses", "lacks amx_tile"],
            ["\(hosts.hosts[0].name) lacks PAGEMAP_SCAN", "apus doctor"],
            ["\(hosts.hosts[1].name) refuses", "lacks PAGEMAP_SCAN", "apus doctor"],
        ][which]
        try withDirtier(hosts) { try expectRefusal(hosts, $0, words: words) }
    }

    // MARK: - Files that differ

    /// A program on a bind mount; the destination finds other things at the same path.
    private func withBindMount(_ body: (TwoHosts, RunningContainer, _ folder: String) throws -> Void) throws {
        let hosts = try TwoHosts(allowing: { $0.bindSources = [$1 + "/shared"] }), folder = hosts.folder + "/shared"
        defer {
            while clx_umount(folder, 2 /* MNT_DETACH */) == 0 {}
            hosts.tearDown()
        }
        try Folder.create(folder)
        try check(clx_mount("none", folder, "tmpfs", 0, nil), "mounting a tmpfs")
        try FileManager.default.copyItem(atPath: "\(workloads)/dirtier", toPath: folder + "/dirtier")
        let container = try hosts.run("sit", "dirtier", Self.dirtier) { config in
            config.tree["process"]!["args"] = .strings(["/opt/dirtier"] + Self.dirtier)
            config.tree["mounts"] = .array(
                config.tree["mounts"]!.elements + [
                    ["destination": "/opt", "type": "bind", "source": .string(folder), "options": ["bind"]]
                ])
        }
        try hosts.waitUntilReady(container)
        // The container keeps what it has; whoever looks from now on finds an empty folder.
        try check(clx_umount(folder, 2 /* MNT_DETACH */), "unmounting \(folder)")
        try body(hosts, container, folder)
    }

    @Test func mappedFileDiffers() throws {
        try withBindMount { hosts, container, folder in
            var other = try SmallFile.read("\(workloads)/dirtier")
            other[other.count - 1] ^= 1
            try Data(other).write(to: URL(fileURLWithPath: folder + "/dirtier"))
            try expectRefusal(
                hosts, container, words: ["mapped file /opt/dirtier differs", "same size, other content"])
            other.append(0)
            try Data(other).write(to: URL(fileURLWithPath: folder + "/dirtier"))
            try expectRefusal(
                hosts, container, words: ["mapped file /opt/dirtier differs", "\(other.count) bytes instead of"])
            unlink(folder + "/dirtier")
            try expectRefusal(hosts, container, words: ["mapped file /opt/dirtier is not there"])
            rmdir(folder)
            try expectRefusal(hosts, container, words: ["bind mount source \(folder) does not exist"])
        }
    }

    // MARK: - What the engine has in the process

    @Test func aChildBornMeanwhileInheritsNothingOfTheEngine() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("sit", "holder", ["parent"])
        try hosts.waitUntilReady(container)
        var plan = MigrationPlan(technique: .preCopy)
        plan.handover = .atTrigger
        var inherited: [String] = ["nothing was looked at"]
        let error = hosts.failure(of: container, plan) { control in
            #expect(!hosts.traces(of: container).allSatisfy { !$0.contains("rwxs") })
            kill(container.pid, SIGUSR1)
            var children: [Int32] = []
            for _ in 0..<2000 where children.isEmpty {
                usleep(1000)
                children = try ProcessFiles.children(of: container.pid)
            }
            let maps = try MemoryMapReader(pid: try #require(children.first))
            _ = try maps.refresh()
            inherited = maps.entries.filter { $0.shared && $0.executable }.map { "a mapping at \($0.range)" }
            let vdso = try #require(maps.entries.first { $0.name == "[vdso]" }).range,
                own = try MemoryMapReader(pid: getpid())
            _ = try own.refresh()
            let ours = try #require(own.entries.first { $0.name == "[vdso]" }).range
            if try ProcessMemory(pid: children[0]).peek(vdso.count, at: vdso.lowerBound)
                != ProcessMemory(pid: getpid()).peek(ours.count, at: ours.lowerBound)
            {
                inherited.append("another vDSO than the kernel's")
            }
            control.cancel()
        }
        #expect(inherited == [])
        #expect(error?.kind == .cancelled, "\(String(describing: error))")
        #expect(hosts.traces(of: container) == [])
    }

    // MARK: - The container ends

    @Test(arguments: Technique.allCases) func containerExitsInTheMiddle(_ technique: Technique) throws {
        let hosts = try TwoHosts()
        try withDirtier(hosts) { container in
            var plan = MigrationPlan(technique: technique)
            plan.handover = .atTrigger
            let error = hosts.failure(of: container, plan) { _ in kill(container.pid, SIGKILL) }
            #expect(error?.kind == .exited, "\(String(describing: error))")
            #expect(error?.advice?.contains("apus logs sit") == true)
            #expect(hosts.leftovers(of: container.name) == [])
            // Its folder and its log stay for whoever wants to know why.
            let state = try hosts.hosts[0].runtime.state(container.name)
            let log = try hosts.log(container.name, on: 0), journals = try Folder.names(hosts.hosts[0].journals)
            #expect(state?.status == .stopped && log.contains("ready") && journals == [])
        }
    }
}

/// Addresses at which no agent answers.
@Suite struct UnreachableTests {
    private func error(_ address: String) -> (MigrationError?, took: Double) {
        let start = monotonicNow()
        var found: MigrationError?
        do throws(MigrationError) { _ = try PeerAddress(address)!.connectToAgent(timeLimit: .milliseconds(300)) } catch
        { found = error }
        return (found, Double(monotonicNow() - start) / 1e9)
    }

    @Test func nobodyListens() throws {
        let (error, _) = error("127.0.0.1:1")
        #expect(error?.kind == .unreachable && error?.message == "connecting to 127.0.0.1:1: connection refused")
        #expect(error?.advice?.contains("apus agent --listen") == true)
    }

    /// A listener whose queue is full drops what comes.
    @Test func packetsAreDropped() throws {
        let (listener, port) = try TwoHosts.listen(backlog: 0)
        let address = "127.0.0.1:\(port)"
        let held = (0..<3).compactMap { _ in try? PeerAddress(address)!.connect(timeLimit: .milliseconds(50)) }
        let (error, took) = error(address)
        #expect(
            error?.kind == .unreachable && error?.message.contains("no answer in 0.3 seconds") == true,
            "\(String(describing: error))")
        #expect(took > 0.2 && took < 10)
        withExtendedLifetime((listener, held)) {}
    }

    /// A host that takes the connection and says nothing, and one that says something else.
    @Test(.enabled(if: geteuid() == 0), .timeLimit(.minutes(1)), arguments: [nil, "HTTP/1.1 400 Bad Request\r\n\r\n"])
    func somethingElseListens(_ words: String?) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("sit", "dirtier", ["--memory", "8M"])
        try hosts.waitUntilReady(container)
        let (listener, port) = try TwoHosts.listen()
        try OwnThread.start("silent") {
            guard let socket = try? PeerAddress.accept(on: listener) else { return }
            if let words { _ = write(socket.number, words, words.utf8.count) }
            var byte: UInt8 = 0
            while read(socket.number, &byte, 1) > 0 {}
        }
        let error = hosts.failure(of: container, MigrationPlan(technique: .cold), to: "127.0.0.1:\(port)")
        #expect(error?.kind == (words == nil ? .unreachable : .failed))
        #expect(
            error?.message.contains(words == nil ? "no answer in 1 s" : "does not keep to the protocol") == true,
            "\(String(describing: error))")
        #expect(hosts.traces(of: container) == [])
        #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
    }
}

@Suite struct RateMeterTests {
    @Test func tellsTheLastSecond() {
        var meter = RateMeter()
        #expect(meter.rate(at: 0) == 0)
        let millisecond: Int64 = 1_000_000
        // Two seconds of 1,000 bytes a millisecond, then one of 100.
        for step in 0...3000 as ClosedRange<Int64> {
            meter.note(UInt64(step <= 2000 ? step * 1000 : 2_000_000 + (step - 2000) * 100), at: step * millisecond)
            if step == 100 || step == 2000 { #expect(abs(meter.rate(at: step * millisecond) - 1_000_000) < 1000) }
        }
        // Between two samples, at most 50 ms apart, the rate counts as steady.
        #expect(abs(meter.rate(at: 3000 * millisecond) - 100_000) < 12_000)
        // Silence counts as such.
        #expect(abs(meter.rate(at: 3500 * millisecond) - 50_000) < 1000)
        #expect(meter.rate(at: 4001 * millisecond) == 0)
    }
}
