// What sockets hold travels in one message, which has a longest length.
import Engine
import Foundation
import Testing

@testable import Migration

@Suite struct QueueLimitTests {
    @Test func moreThanAPromiseCarriesIsNamedBeforeOneIsMade() {
        #expect(QueueLimit.reason(against: QueueLimit.most) == nil)
        let words = QueueLimit.reason(against: 300 << 20)
        #expect(
            words?.contains("300 MiB") == true && words?.contains("288 MiB can be carried") == true, "\(words ?? "")")
    }

    @Test func queuesOfConnectionsAndDatagramsCount() {
        let connection = LateState.with { ($0.tcp.sendQueue, $0.tcp.receiveQueue) = (Data(count: 5), Data(count: 7)) }
        let datagrams = LateState.with {
            $0.datagrams.datagrams = [3, 4].map { size in Datagram.with { $0.content = Data(count: size) } }
        }
        #expect([connection, datagrams, LateState()].map(\.queuedBytes) == [12, 7, 0])
    }
}
