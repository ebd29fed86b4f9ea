// Frames that the kernel has not come to, as its counters show them.
import Glibc
import Testing

@testable import LinuxKernel

@Suite struct ReceiveBacklogTests {
    @Test func processorsNeedNotBeEmptyAtOneInstant() throws {
        var looks: [[Int]] = [[3, 0, 1], [2, 5, 0], [0, 7, 9]]
        #expect(try ReceiveBacklog.drain(milliseconds: 1000) { looks.removeFirst() })
        #expect(looks.isEmpty)
    }

    @Test func aProcessorThatIsNeverEmptyIsSaid() throws {
        #expect(try !ReceiveBacklog.drain(milliseconds: 5) { [0, 1] })
    }

    @Test func thisMachineTellsOfEachProcessor() throws {
        #expect(try ReceiveBacklog.lengths().count == sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    }
}
