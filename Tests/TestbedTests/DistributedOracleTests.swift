import Testing

@testable import Testbed

/// The distributed application's oracle against services that are right, and against each way of being wrong.
struct DistributedOracleTests {
    /// What gateway, worker and store do, in a few lines; a test spoils its state.
    private struct Services {
        var number: UInt64 = 0
        var counts: [UInt64] = [0, 0]
        var digests: [UInt64] = [0, 0]
        var held: [UInt64] = [0, 0]

        mutating func serve(_ message: DistributedMessage) -> DistributedMessage {
            let session = Int(message.session)
            number += 1
            counts[session] += 1
            digests[session] = DistributedOracle.digest(digests[session], message.word, message.sequence)
            var answer = message
            (answer.number, answer.count, answer.digest) = (number, counts[session], digests[session])
            answer.stored = held[session]
            held[session] = digests[session]
            return answer
        }
        var status: DistributedMessage {
            var message = DistributedMessage(.status)
            (message.number, message.count) = (number, counts.reduce(0, +))
            for (session, digest) in digests.enumerated() {
                message.digest &+= DistributedOracle.mix(UInt64(session) ^ digest)
            }
            return message
        }
    }

    /// Twenty requests, with something done to the services before the eleventh.
    private func failed(atEnd: (inout Services) -> Void = { _ in }, _ spoil: (inout Services) -> Void) -> [String] {
        var oracle = DistributedOracle(sessions: 2)
        var services = Services()
        for request in 0..<20 {
            if request == 10 { spoil(&services) }
            oracle.judge(services.serve(oracle.ask(request % 2)), of: request % 2)
        }
        atEnd(&services)
        oracle.judgeAtEnd(services.status, held: services.held)
        return oracle.verdicts.filter { !$0.passed }.compactMap { $0.name.split(separator: " ").first.map(String.init) }
    }

    @Test func rightServicesPass() { #expect(failed { _ in } == []) }

    @Test func oldStateIsCaught() {
        #expect(failed { $0.number -= 1 } == ["gateway"], "the gateway repeats a number")
        #expect(failed { $0.number += 1 } == ["gateway"], "the gateway leaves one out")
        #expect(failed { $0.counts[1] -= 1 } == ["worker"])
        #expect(failed { $0.digests[0] ^= 1 } == ["worker", "store"], "the store is told what the worker believes")
        #expect(failed { $0.held[0] = 7 } == ["store"], "a stale value in the store")
    }

    @Test func lostWriteShowsAtTheEnd() {
        #expect(failed(atEnd: { $0.held[1] = 0 }, { _ in }) == ["store"])
        #expect(failed(atEnd: { $0.counts[0] -= 1 }, { _ in }) == ["worker"])
        #expect(failed(atEnd: { $0.number -= 1 }, { _ in }) == ["gateway"])
    }

    @Test func badPagesAreCaught() {
        var oracle = DistributedOracle(sessions: 1)
        var services = Services()
        oracle.judge(services.serve(oracle.ask(0)), of: 0)
        var status = services.status
        // The sum is over sessions that had a request.
        status.digest = DistributedOracle.mix(services.digests[0])
        status.stored = 3
        oracle.judgeAtEnd(status, held: [services.held[0]])
        #expect(oracle.problems == ["worker: 3 of its pages are wrong"])
    }

    @Test func messagesTravel() {
        var message = DistributedMessage(.request)
        (message.number, message.word, message.stored) = (1 << 40, .max, 0x0102_0304_0506_0708)
        var bytes: [UInt8] = [9]
        message.append(to: &bytes)
        #expect(bytes.count == 1 + DistributedMessage.size && bytes[1] == 1)
        #expect(bytes[57...] == [8, 7, 6, 5, 4, 3, 2, 1])
        #expect(DistributedMessage(bytes[1...]) == message)
    }
}
