// Page-fault events of real processes under asynchronous write-protection.
import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Memory

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct FaultEventsTests {
    @Test(arguments: FaultSource.allCases)
    func oneWriteWakesThoughNoTimerRuns(_ source: FaultSource) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let events = try listen(writer, 1, source)
        let before = monotonicNow()
        let batch = try #require(try waitWhile(events) { writer.run("w 17 1") })
        #expect(batch.pages >= 1 && !batch.lost)
        #expect(writer.own(batch.addresses.union(events.take().addresses)) == AddressRanges([writer.page(17)]))
        #expect(batch.since! > before && batch.since! < monotonicNow())
        #expect(try writer.scan() == AddressRanges([writer.page(17)]))
        // Again, after the scan has protected it again.
        let again = try #require(try waitWhile(events) { writer.run("w 17 1") })
        #expect(writer.own(again.addresses.union(events.take().addresses)) == AddressRanges([writer.page(17)]))
    }

    @Test(arguments: FaultSource.allCases)
    func fewerPagesThanAnEventDoNotWake(_ source: FaultSource) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let events = try listen(writer, 40, source)
        writer.run("w 20 20")
        #expect(try events.wait(timeoutMilliseconds: 200) == nil)
        // The same pages again are no new ones, even if they fault again.
        try writer.scan()
        writer.run("w 20 20")
        #expect(try events.wait(timeoutMilliseconds: 200) == nil)
        let batch = try #require(try waitWhile(events) { writer.run("w 500 20") })
        #expect(batch.pages >= 40)
        let all = batch.addresses.union(events.take().addresses)
        #expect(writer.own(all) == AddressRanges([writer.page(20, count: 20), writer.page(500, count: 20)]))
        #expect(try events.wait(timeoutMilliseconds: 0) == nil)
    }

    @Test(arguments: FaultSource.allCases)
    func largeEventsComeInTime(_ source: FaultSource) throws {
        let writer = try Writer(pages: 20_000)
        defer { writer.end() }
        try writer.track()
        let events = try listen(writer, 4000, source)
        let batch = try #require(try waitWhile(events) { writer.run("w 0 6001") })
        #expect(batch.pages >= 4000 && !batch.lost)
        let all = batch.addresses.union(events.take().addresses)
        #expect(writer.own(all) == AddressRanges([writer.page(0, count: 6001)]))
    }

    /// First writes to absent pages, writes of the kernel, of new threads.
    @Test(arguments: FaultSource.allCases)
    func everyKindOfWriteIsHeard(_ source: FaultSource) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let events = try listen(writer, 1, source)
        for (command, page) in [("w 990 1", 990), ("r 30 1", 30), ("t 40 1", 40), ("r 995 1", 995)] {
            let batch = try waitWhile(events) { writer.run(command) }
            usleep(1000)
            let all = batch?.addresses.union(events.take().addresses)
            #expect(all?.contains(writer.page(page).lowerBound) == true, "\(command)")
            try writer.scan()
            _ = events.take()
        }
    }

    @Test(arguments: FaultSource.allCases)
    func whatIsNoChangeIsNoEvent(_ source: FaultSource) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        let early = try listen(writer, 1, source)
        writer.run("w 100 10")
        #expect(!early.take().addresses.contains(writer.page(100).lowerBound), "written before it was protected")
        try writer.track()
        let events = try listen(writer, 1, source)
        writer.run("l 0 900")
        writer.run("w 5 1")
        writer.run("w 5 1")
        #expect(writer.own(events.take().addresses) == AddressRanges([writer.page(5)]))
        writer.run("w 5 1")
        #expect(writer.own(events.take().addresses) == AddressRanges())
        // A first read of an absent page: only the tracepoint tells reads from writes.
        writer.run("l 990 2")
        let looked = source == .tracepoint ? AddressRanges() : AddressRanges([writer.page(990, count: 2)])
        #expect(writer.own(events.take().addresses) == looked)
    }

    @Test(arguments: FaultSource.allCases)
    func otherProcessesAreNotHeard(_ source: FaultSource) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        let inside = try Writer(pages: 1000, cgroup: writer.cgroup), outside = try Writer(pages: 1000)
        defer { inside.end(); outside.end() }
        for each in [writer, inside, outside] { try each.track() }
        let events = try listen(writer, 1, source)
        inside.run("w 0 500")
        outside.run("w 0 500")
        inside.run("w 990 5")
        #expect(try events.wait(timeoutMilliseconds: 100) == nil)
        // A child's writes are not the parent's.
        writer.run("c 300 10")
        #expect(!events.take().addresses.contains(writer.page(300).lowerBound))
        // The proof that something would have been heard.
        let theirs = try listen(inside, 1, source)
        try inside.scan()
        inside.run("w 0 500")
        #expect(try theirs.wait(timeoutMilliseconds: 100)?.pages ?? 0 > 0)
    }

    @Test(arguments: FaultSource.allCases)
    func saysThatItLost(_ source: FaultSource) throws {
        let writer = try Writer(pages: 20_000)
        defer { writer.end() }
        try writer.track()
        // Rings of 128 KiB for so few pages: neither source can keep 19,000 faults of one CPU, or of two.
        let events = try listen(writer, 4, source)
        writer.run("w 0 19000")
        let batch = try #require(try events.wait(timeoutMilliseconds: 0))
        #expect(batch.lost && batch.pages < 19_000 && batch.pages > 1000)
        #expect(try writer.scan() == AddressRanges([writer.page(0, count: 19_000)]), "the scan knows all")
        _ = events.take()
        writer.run("w 7 4")
        #expect(try events.wait(timeoutMilliseconds: 1000)?.lost == false)
    }

    @Test func anotherDescriptorWakes() throws {
        let writer = try Writer(pages: 100)
        defer { writer.end() }
        try writer.track()
        let events = try listen(writer, 40, .softwareEvent)
        writer.run("w 3 1")
        #expect(try waitWhile(events, milliseconds: 20) {} == nil)
        #expect(writer.own(events.take().addresses) == AddressRanges([writer.page(3)]), "what came so far is kept")
        events.stop()
        writer.run("w 4 1")
        #expect(events.take().pages == 0)
    }

    @Test func saysWhyItIsNotAvailable() throws {
        #expect(FaultEvents.availability() == nil)
        let noTracefs = FaultEvents.unavailability(.tracepoint, [], tracefs: ["/usr"])
        #expect(noTracefs?.contains("tracefs is not mounted or not readable at /usr") == true, "\(noTracefs ?? "nil")")
        let folder = FaultEvents.availability(cgroupFolders: ["/no/such/cgroup"])
        #expect(folder?.contains("/no/such/cgroup") == true, "\(folder ?? "nil")")
        // A folder that is no cgroup, or one that perf events do not go by.
        #expect(FaultEvents.availability(cgroupFolders: ["/usr"])?.contains("cgroup /usr") == true)
        #expect(FaultEvents.availability(cgroupFolders: []) == nil)
        let writer = try Writer(pages: 100)
        defer { writer.end() }
        #expect(FaultEvents.availability(cgroupFolders: ["/usr", "/no/such", writer.cgroup]) == nil)
        try withTracefs {
            #expect(FaultEvents.unavailability(.tracepoint, [writer.cgroup], tracefs: ["/none", $0]) == nil)
        }
    }

    @Test func readsTheTracepointsFormat() {
        let text =
            "format:\n\tfield:unsigned long address;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:int x;\toffset:16;\tsize:4;\tsigned:1;\n"
        #expect(FaultKinds.offset(of: "unsigned long address", in: text) == 8)
        #expect(FaultKinds.offset(of: "int x", in: text) == nil)
        #expect(FaultKinds.offset(of: "unsigned long ip", in: text) == nil)
    }
}
