// What page-fault events cost and how soon they come: APUS_FIGURES=1 swift test --filter FaultEventsFigures
import Foundation
import LinuxKernel
import Testing

@testable import Memory

@Suite(.serialized, .enabled(if: geteuid() == 0 && ProcessInfo.processInfo.environment["APUS_FIGURES"] != nil))
struct FaultEventsFigures {
    struct Listening: Sendable {
        var source: FaultSource?
        var pages: Int
    }

    /// First writes to protected pages, while a thread of ours takes the events (and does nothing with them).
    @Test func costOfAWrite() throws {
        let ways =
            [Listening(source: nil, pages: 0)]
            + FaultSource.allCases.flatMap { source in
                [1, 64, 1024].map { Listening(source: source, pages: $0) }
            }
        for (count, rate) in [(2000, 1000), (50_000, 50_000)] {
            for _ in 0..<3 {
                for way in ways {
                    let writer = try Writer(pages: 50_100)
                    defer { writer.end() }
                    try writer.track()
                    var text = "off"
                    let ended = Flag(), done = DispatchSemaphore(value: 0)
                    var batches = Box()
                    if let source = way.source {
                        text = "\(source), event of \(way.pages)"
                        let events = Box(try listen(writer, way.pages, source)), taken = Box()
                        batches = taken
                        try OwnThread.start("figures") {
                            while !ended.isSet {
                                if let batch = try? events.events!.wait(timeoutMilliseconds: 100) {
                                    (taken.count, taken.pages) = (taken.count + 1, taken.pages + batch.pages)
                                }
                            }
                            done.signal()
                        }
                    }
                    let result = writer.run("b \(count) \(rate)")
                    ended.set()
                    if way.source != nil { done.wait() }
                    print(
                        "FIGURE \(rate)/s \(text): median \(result[0]) ns, mean \(result[1]) ns, \(result[2]) pages/s, \(batches.count) batches, \(batches.pages) pages"
                    )
                }
            }
        }
    }

    @Test(arguments: FaultSource.allCases)
    func latency(_ source: FaultSource) throws {
        let writer = try Writer(pages: 5000)
        defer { writer.end() }
        try writer.track()
        let events = try listen(writer, 1, source)
        var delays: [Int64] = [], empty = 0
        for index in 0..<3000 {
            _ = events.take()
            writer.send("w \(index) 1")
            _ = try events.wait(timeoutMilliseconds: -1)
            let back = monotonicNow()
            // Would a scan that starts at once find the page?
            if index < 1000, try !writer.scan().contains(writer.page(index).lowerBound) { empty += 1 }
            delays.append(back - writer.answer()[0])
            usleep(300)
        }
        delays.sort()
        print(
            "FIGURE \(source): write to return of wait: median \(delays[1500] / 1000) us, p99 \(delays[2970] / 1000), max \(delays[2999] / 1000); scans that came too early \(empty) of 1000"
        )
        let start = monotonicNow()
        events.stop()
        print("FIGURE \(source): stop \((monotonicNow() - start) / 1000) us")
        let again = monotonicNow()
        let opened = try listen(writer, 1, source)
        print("FIGURE \(source): open \((monotonicNow() - again) / 1000) us")
        opened.stop()
    }
}

final class Box: @unchecked Sendable {
    let events: FaultEvents?
    var count = 0, pages = 0
    init(_ events: FaultEvents? = nil) { self.events = events }
}
