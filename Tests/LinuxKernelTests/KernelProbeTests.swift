// The probe of this machine's kernel, and what a destination makes of a source's facts.
import Glibc
import Synchronization
import Testing

@testable import LinuxKernel

@Suite struct KernelProbeTests {
    @Test func releasesAreRead() {
        #expect(KernelProbe.version(of: "6.18.1-amd64").map { [$0.major, $0.minor] } == [6, 18])
        #expect(KernelProbe.version(of: "6.7.0-rc1").map { [$0.major, $0.minor] } == [6, 7])
        #expect(KernelProbe.version(of: "6.7-rc1").map { [$0.major, $0.minor] } == [6, 7])
        #expect(KernelProbe.version(of: "linux") == nil)
    }

    @Test func everyFindingSaysWhyAndWhatToDo() {
        let probe = KernelProbe(runtime: nil)
        #expect(Set(probe.findings.map(\.name)).count == probe.findings.count)
        for finding in probe.findings {
            #expect(!finding.why.isEmpty && !finding.found.isEmpty)
            #expect((finding.advice == nil) == (finding.state == .ok), "\(finding.name)")
            #expect(finding.essential || finding.state != .missing, "\(finding.name)")
        }
        #expect(probe.facts.missing.contains("runtime") && !probe.canMigrate)
        #expect(probe.facts.availableMemory > 0 && !probe.facts.processorFeatures.isEmpty)
    }

    @Test(.enabled(if: geteuid() == 0)) func twoProbesAgree() throws {
        let (first, second) = (KernelProbe(runtime: "runc 1").facts, KernelProbe(runtime: "runc 1").facts)
        #expect(first.vdso == second.vdso && first.xsaveSize == second.xsaveSize)
        #expect(
            first.reasonsAgainst(taking: second)
                == first.missing.map { "this host lacks \($0) (`apus doctor` says what to do)" })
        // The vDSO is the same in another process.
        #expect(try VDSO(pid: getppid()).digest == first.vdso.digest)
    }

    /// Agents that start at the same time, and whatever else takes PIDs meanwhile, must not spoil each other's
    /// findings.
    @Test(.enabled(if: geteuid() == 0)) func probesSideBySideAgree() throws {
        let alone = KernelProbe(runtime: "runc 1").facts.missing
        let found = Mutex<[[String]]>([])
        let threads = try (0..<6).map { _ in
            try OwnThread("probe") {
                for _ in 0..<4 {
                    let missing = KernelProbe(runtime: "runc 1").facts.missing
                    found.withLock { $0.append(missing) }
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(found.withLock { $0 } == [[String]](repeating: alone, count: 24))
    }

    @Test func differencesAreNamed() {
        var here = KernelFacts()
        (here.architecture, here.processor, here.processorFeatures) = ("x86_64", "B", ["sse", "avx"])
        (here.xsaveSize, here.xsaveMask, here.vdso) = (832, 7, VDSO(digest: "1", layout: ["[vdso] 8192"]))
        #expect(here.reasonsAgainst(taking: here).isEmpty)
        var there = here
        there.processorFeatures.append("avx512f")
        #expect(here.reasonsAgainst(taking: there).first?.contains("lacks avx512f") == true)
        #expect(there.reasonsAgainst(taking: here).isEmpty)
        there = here
        there.xsaveSize = 2432
        #expect(here.reasonsAgainst(taking: there).first?.contains("2432 bytes") == true)
        there = here
        there.vdso.layout = ["[vdso] 4096"]
        #expect(here.reasonsAgainst(taking: there).first?.contains("vDSO") == true)
        there.architecture = "aarch64"
        #expect(here.reasonsAgainst(taking: there) == ["the source is aarch64 and this host x86_64"])
        there = here
        here.missing = ["ptrace"]
        #expect(here.reasonsAgainst(taking: there).count == 1)
    }
}
