import Testing

@testable import Testbed

struct RedisUnitTests {
    @Test func repliesInPieces() throws {
        let stream = Array("+OK\r\n:42\r\n$5\r\nhe\r\no\r\n$-1\r\n*2\r\n$1\r\na\r\n:1\r\n-ERR no\r\n".utf8)
        let expected: [RESPReply] = [
            .simple("OK"), .integer(42), .bulk(Array("he\r\no".utf8)), .null, .array([.bulk([97]), .integer(1)]),
            .error("ERR no"),
        ]
        for size in 1...stream.count {
            var reader = RESPReader()
            var replies: [RESPReply] = []
            for start in stride(from: 0, to: stream.count, by: size) {
                Array(stream[start..<min(start + size, stream.count)]).withUnsafeBytes { reader.append($0) }
                while let reply = try reader.next() { replies.append(reply) }
            }
            #expect(replies == expected)
        }
    }

    @Test(arguments: ["?", "$99999999999", ":x", "*-5"])
    func nonsenseIsRefused(text: String) {
        var reader = RESPReader()
        Array("\(text)\r\n".utf8).withUnsafeBytes { reader.append($0) }
        #expect(throws: RESPReader.Malformed.self) { try reader.next() }
    }

    @Test func repliesAreSkipped() throws {
        let stream = Array("+OK\r\n$5\r\nhe\r\no\r\n$-1\r\n:7\r\n-ERR no\r\n".utf8)
        for size in 1...stream.count {
            var reader = RESPReader()
            var errors: [Bool] = []
            for start in stride(from: 0, to: stream.count, by: size) {
                Array(stream[start..<min(start + size, stream.count)]).withUnsafeBytes { reader.append($0) }
                while let isError = try reader.skip() { errors.append(isError) }
            }
            #expect(errors == [false, false, false, false, true])
        }
    }

    @Test func valuesAreTheGenerators() {
        let generator = ValueGenerator(seed: 7, size: 200)
        #expect(generator.value(3) == generator.value(3))
        #expect(generator.value(3) != generator.value(4))
        #expect(ValueGenerator(seed: 8, size: 200).value(3) != generator.value(3))
        #expect(generator.value(3).count == 200)
        // SplitMix64 from state 0: the reference implementation's first output.
        #expect(ValueGenerator.mix(0x9E37_79B9_7F4A_7C15) == 0xE220_A839_7B1D_CDAF)
        let half = ValueGenerator(seed: 7, size: 128, entropy: 0.5).value(0)
        #expect(half[32..<64].allSatisfy { $0 == 0x61 } && half[96..<128].allSatisfy { $0 == 0x61 })
        #expect(!half[0..<32].allSatisfy { $0 == 0x61 })
    }

    private let ms: Int64 = 1_000_000

    /// Requests each millisecond, answered after 0.1 ms, but none between 100 and 600 ms: those come at 600.
    private func recording(_ events: [RetransmissionEvent], resumeAt: Int64 = 600) -> RedisRecording {
        let samples = (1...2000).map { at in
            let sent = Int64(at) * ms
            let answered = (100...resumeAt).contains(Int64(at)) ? resumeAt * ms : sent + ms / 10
            return ProbeSample(kind: .get, intended: sent, sent: sent, answered: answered, served: answered / 1000)
        }
        return RedisRecording(
            period: 1e6, samples: samples, unanswered: 0, closed: nil, closedAt: nil, timeoutEvents: events,
            counters: TCPCounters(), realTime: true)
    }

    @Test func windowsFindTheGap() {
        let window = recording([]).window()
        #expect(abs(window.largestGap - 500.9) < 0.01)
        #expect(abs(window.clientDowntime - 499.9) < 0.01)
        #expect(abs(window.workloadDowntime - 499.9) < 0.01)
        #expect(abs(window.slowest - 500) < 0.01)
        #expect(window.late == 490)
        #expect(recording([]).window(700 * ms).clientDowntime < 0.01)
    }

    /// A stall that does not touch the blackout is none of its downtime, and told beside it.
    @Test func downtimeIsTheGapOfTheBlackout() {
        let there = recording([]).window(blackout: (101 * ms)...(590 * ms))
        #expect(abs(there.clientDowntime - 499.9) < 0.01 && there.largestGapElsewhere < 1.2)
        let elsewhere = recording([]).window(blackout: (1200 * ms)...(1202 * ms))
        #expect(elsewhere.clientDowntime < 0.01 && elsewhere.workloadDowntime < 0.01)
        #expect(abs(elsewhere.largestGapElsewhere - 500.9) < 0.01)
        // What a timer begun in the blackout delays counts.
        #expect(recording([]).window(blackout: (10 * ms)...(20 * ms)).clientDowntime > 499)
    }

    @Test func timeoutsInsideABlackoutAreToldNotBlamed() {
        let event = RetransmissionEvent(at: 320 * ms, timeouts: 1, retransmitted: 1, timer: 400)
        let blackout = (100 * ms)...(599 * ms)
        func timer(_ recording: RedisRecording, _ blackouts: [ClosedRange<Int64>]) -> Verdict {
            recording.verdicts(blackouts: blackouts).last!
        }
        #expect(timer(recording([event]), [blackout]).passed)
        #expect(timer(recording([event]), [blackout]).detail.contains("inside a blackout"))
        #expect(!timer(recording([event]), []).passed)
        #expect(!timer(recording([event]), [(100 * ms)...(200 * ms)]).passed)
        // Released at 200, first answer at 600: the client waited for something.
        #expect(!timer(recording([]), [(100 * ms)...(200 * ms)]).passed)
    }
}
