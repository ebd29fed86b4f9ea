// What a copy knows of the way to its destination, by counts and instants alone.
import Testing

@testable import Migration

@Suite struct FlowControlTests {
    private static let millisecond: Int64 = 1_000_000

    /// Has a pass sent and answered, over a link that takes `bytes` in the time between the two.
    private func settled(_ flow: inout FlowControl, bytes: UInt64, from: Int64, to: Int64) {
        let number = flow.sent(bytes, began: from, at: from)
        flow.answered(number, at: to)
    }

    @Test func theRateIsThatOfWhatHasArrived() {
        var flow = FlowControl()
        settled(&flow, bytes: 50_000_000, from: 0, to: 1000 * Self.millisecond)
        #expect(flow.throughput == 50e6)
        // A pass that waited behind another counts from that one's answer.
        let first = flow.sent(1_000_000, began: 2000 * Self.millisecond, at: 2000 * Self.millisecond)
        let second = flow.sent(4_000_000, began: 2001 * Self.millisecond, at: 2001 * Self.millisecond)
        flow.answered(first, at: 2010 * Self.millisecond)
        flow.answered(second, at: 2050 * Self.millisecond)
        #expect(flow.throughput == 100e6)
    }

    @Test func aSmallPassIsNoMeasureOfTheRate() {
        var flow = FlowControl()
        let before = flow.throughput
        settled(&flow, bytes: 4096, from: 0, to: 1000 * Self.millisecond)
        #expect(flow.throughput == before)
    }

    @Test func passesAreNumberedFromOneAndAnsweredUpToANumber() {
        var flow = FlowControl()
        let numbers = (0..<4).map { flow.sent(1, began: $0, at: $0) }
        #expect(numbers == [1, 2, 3, 4] && flow.underWay == 4)
        flow.answered(3, at: 10)
        #expect(flow.underWay == 1)
        flow.forget()
        #expect(flow.underWay == 0 && flow.lastNumber == 4)
    }

    @Test func itIsBehindUntilTheFirstAnswer() {
        var flow = FlowControl()
        #expect(!flow.isBehind(at: 0))
        let number = flow.sent(4096, began: 0, at: 0)
        #expect(flow.isBehind(at: 0))
        flow.answered(number, at: Self.millisecond)
        #expect(!flow.isBehind(at: Self.millisecond))
    }

    /// Answers come after 2 ms: a sync that has none after 3 waits behind others at the destination.
    @Test func itIsBehindWhenAnAnswerIsAMillisecondLate() {
        var flow = FlowControl()
        settled(&flow, bytes: 4096, from: 0, to: 2 * Self.millisecond)
        let sent = 10 * Self.millisecond
        _ = flow.sent(4096, began: sent, at: sent)
        #expect(!flow.isBehind(at: sent + 3 * Self.millisecond))
        #expect(flow.isBehind(at: sent + 3 * Self.millisecond + 1))
    }

    /// 100 MB a second: 1 MB takes 10 ms, of which all but the last must have passed.
    @Test func itIsBehindWhileTheLinkIsBusy() {
        var flow = FlowControl()
        settled(&flow, bytes: 100_000_000, from: 0, to: 1000 * Self.millisecond)
        let sent = 2000 * Self.millisecond
        _ = flow.sent(1_000_000, began: sent, at: sent)
        #expect(flow.isBehind(at: sent + 8 * Self.millisecond))
        #expect(!flow.isBehind(at: sent + 9 * Self.millisecond))
    }
}
