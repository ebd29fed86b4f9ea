// How much sockets may hold that was not read or not acknowledged: all of it travels in one message, the promise.
import Engine
import LinuxKernel

enum QueueLimit {
    /// Bytes. The rest of a promise is for what comes with each connection.
    static let most = UInt64(FrameKind.promise.longest - (16 << 20))

    /// Why so much cannot be carried; nil: it can.
    static func reason(against bytes: UInt64) -> String? {
        if bytes <= most { return nil }
        return
            "its sockets hold \(bytes >> 20) MiB that was not read or not acknowledged yet, and \(most >> 20) MiB can be "
            + "carried: it can move when its programs have read some of it"
    }
}

extension LateState {
    /// Bytes of its queues.
    var queuedBytes: UInt64 {
        switch kind {
        case .tcp(let connection): UInt64(connection.sendQueue.count + connection.receiveQueue.count)
        case .datagrams(let queue): queue.datagrams.reduce(0) { $0 + UInt64($1.content.count) }
        case nil: 0
        }
    }
}
