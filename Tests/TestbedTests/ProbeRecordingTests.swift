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

struct InterruptionTests {
    /// An answer each 10 ms, but for the stretches without any, ms.
    private func recording(without silent: [ClosedRange<Int64>]) -> ProbeRecording {
        ProbeRecording(
            (0..<1000).map { $0 * 10 }.filter { at in !silent.contains { $0.contains(at) } }
                .map { ProbeRequest(intended: $0 * 1_000_000, sent: $0 * 1_000_000, answered: $0 * 1_000_000) })
    }
    private func stretch(_ from: Int64, _ to: Int64) -> ClosedRange<Int64> { from * 1_000_000...to * 1_000_000 }

    @Test func interruptionAddsWhatIsApart() {
        // 1,000 to 1,200: no link, of which 1,000 to 1,150 for sure; 5,000 to 5,100: frozen; 8,000 to 8,700: neither.
        let recording = recording(without: [1001...1199, 5001...5099, 8001...8699])
        let (radio, freeze) = (stretch(1010, 1150), stretch(5020, 5090))
        #expect(recording.interruption([radio]) == 190)
        #expect(recording.interruption([radio, freeze]) == 190 + 90)
        // Both in one gap count once.
        #expect(recording.interruption([radio, stretch(1050, 1100)]) == 190)
        #expect(recording.interruption([]) == 0)
        #expect(recording.largestGap(outside: [radio, freeze]) == 700)
        #expect(recording.largestGap(outside: [stretch(8100, 8200)]) == 200)
    }

    @Test func overlappingStretchesMerge() {
        #expect([5...9 as ClosedRange<Int64>, 1...3, 8...12, 3...4].merged == [1...4, 5...12])
    }
}
