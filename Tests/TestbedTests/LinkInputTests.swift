import Testing

@testable import Testbed

/// Properties and traces of links as people write them.
struct LinkInputTests {
    @Test func propertiesByName() {
        var change = LinkChange()
        for (property, text) in [
            (LinkProperty.rate, "5.5mbit"), (.delay, "5"), (.jitter, "0.5"), (.loss, "0.1"), (.queue, "1MiB"),
        ] { #expect(property.set(text, in: &change)) }
        let quality = change.applied(to: LinkQuality())
        #expect(quality.rate == LinkRate("5500kbit") && quality.queue == 1 << 20 && quality.mistake == nil)
        #expect(quality.delay == 5 && quality.jitter == 0.5 && quality.loss == 0.1 && quality.reorder == 0)
        let wrong: [(LinkProperty, String)] = [
            (.rate, "5 apples"), (.delay, "-1"), (.delay, "10001"), (.delay, "nan"), (.jitter, ""), (.loss, "101"),
            (.reorder, "x"), (.queue, "100"),
        ]
        for (property, text) in wrong { #expect(!property.set(text, in: &change), "\(property) \(text)") }
        #expect(change.applied(to: LinkQuality()) == quality)
    }

    @Test func queueFollowsTheRate() {
        var quality = LinkQuality()
        #expect(quality.queueLimit == nil)
        quality.rate = LinkRate("1gbit")!
        #expect(quality.queueLimit == 6_250_000)
        quality.rate = LinkRate("1mbit")!
        #expect(quality.queueLimit == 65536)
        quality.queue = 3000
        #expect(quality.queueLimit == 3000)
    }

    @Test func traceIsRead() throws {
        let trace = try LinkTrace(
            "# drive test\r\ntime, rate ,forward.delay,backward.loss\r\n0,10mbit,5,\r\n\r\n2.5,,7.5,1\r\n", file: "t")
        #expect(trace.steps.map(\.time) == [0, 2.5] && trace.length == 2.5)
        var first = LinkChange()
        first.rate = LinkRate("10mbit")
        #expect(trace.steps[0].backward == first)
        first.delay = 5
        #expect(trace.steps[0].forward == first)
        #expect(trace.steps[1].forward.delay == 7.5 && trace.steps[1].forward.rate == nil)
        #expect(trace.steps[1].backward.loss == 1 && trace.steps[1].backward.delay == nil)
    }

    @Test(arguments: [
        ("", nil, "no steps"), ("time,rate\n", nil, "no steps"), ("time\n1\n", 1, "at least one"),
        ("rate,delay\n", 1, "column time"), ("time,speed\n", 1, "speed"), ("time,delay,delay\n", 1, "twice"),
        ("time,up.delay\n", 1, "up.delay"), ("time,delay\n0,5\n\n0,6\n", 4, "does not come after"),
        ("time,delay\n0,5,6\n", 2, "3 values"), ("time,delay\n0,-5\n", 2, "milliseconds"),
        ("time,rate\nsoon,1gbit\n", 2, "seconds"), ("time,backward.queue\n0,1\n", 2, "bytes"),
    ])
    func wrongTraceIsRefused(text: String, line: Int?, word: String) throws {
        let error = try #require(throws: InputError.self) { try LinkTrace(text, file: "drive.csv") }
        #expect(error.line == line && error.file == "drive.csv", "\(error)")
        #expect(error.reason.contains(word), "\(error)")
    }

    @Test func aChangeKeepsTheRest() {
        var quality = LinkQuality()
        (quality.delay, quality.jitter, quality.loss) = (10, 4, 1)
        var change = LinkChange()
        change.delay = 2
        let changed = change.applied(to: quality)
        #expect(changed.delay == 2 && changed.loss == 1)
        // A jitter that no longer fits shrinks unless it is named.
        #expect(changed.jitter == 2 && changed.mistake == nil)
        change.jitter = 3
        #expect(change.applied(to: quality).mistake != nil)
    }
}
