import LinuxKernel
import Testing

@Suite struct ErrnoTests {
    @Test func describesItselfInLowerCase() {
        #expect("\(KernelError("opening /x", .noEntry))" == "opening /x: no such file or directory")
    }
}
