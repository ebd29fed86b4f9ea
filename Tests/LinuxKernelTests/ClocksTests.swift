// Clocks of time namespaces.
import Testing

@testable import LinuxKernel

struct ClocksTests {
    @Test func offsetsAreReadAndWritten() throws {
        let text = "monotonic          -1 929508611\nboottime           -1 929500399\n"
        let clocks = try #require(Clocks(text: text))
        #expect(clocks == Clocks(monotonic: -70_491_389, boottime: -70_499_601))
        for clocks in [
            clocks, .none, Clocks(monotonic: -1, boottime: 1), Clocks(monotonic: -1_000_000_000, boottime: 999_999_999),
            Clocks(monotonic: -86_400_000_000_001, boottime: 86_400_000_000_001),
        ] {
            #expect(Clocks(text: clocks.text) == clocks)
            // Nanoseconds are never negative: the kernel refuses them.
            #expect(!clocks.text.split(separator: "\n").contains { $0.split(separator: " ")[2].hasPrefix("-") })
        }
        #expect(Clocks(text: "boottime           0         0\n") == nil && Clocks(text: "monotonic x 0\n") == nil)
    }

    @Test func ownOnesCanBeRead() throws {
        #expect(Clocks.areSupported)
        _ = try Clocks.offsets()
        let before = Clocks.now(), after = Clocks.now()
        #expect(after.monotonic >= before.monotonic && after.boottime >= before.boottime)
    }
}
