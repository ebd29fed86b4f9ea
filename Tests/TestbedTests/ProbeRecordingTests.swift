import Testing

@testable import Testbed

struct ProbeRecordingTests {
    @Test func bucketsHoldEveryAnswer() throws {
        // 0.1 to 100 ms in steps of 0.1 ms, and two that got no answer.
        var requests = (1...1000).map { ProbeRequest(intended: 5, sent: 5, answered: 5 + Int64($0) * 100_000) }
        requests += [ProbeRequest(intended: 5, sent: 5), ProbeRequest(intended: 6, sent: 6)]
        let summary = ProbeRecording(requests).summary("before", 0, 10)
        #expect(summary.unanswered == 2 && summary.buckets.reduce(0) { $0 + $1.count } == 1000)
        #expect(summary.buckets.last?.latency == summary.slowest && summary.slowest == 100)
        var seen = 0
        for (bucket, next) in zip(summary.buckets, summary.buckets.dropFirst()) {
            #expect(bucket.latency < next.latency)
            seen += bucket.count
            // As many answers took at most as long: exactly, but for one step of the histogram.
            let exact = Double(seen) * 0.1
            #expect(bucket.latency >= exact && bucket.latency < exact + max(0.1, exact * 0.01))
        }
        #expect(ProbeRecording([]).summary("before", 0, 10).buckets.isEmpty)
    }
}
