// The thread of a client of the testbed.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// Runs a client on a thread of its own, in a network namespace, in the real-time class where that is permitted: it
/// stands for other machines, so its own scheduling must not look like a service's delay.
final class ClientThread: Sendable {
    private let isTold = Atomic(false)
    private let outcome = Mutex<Result<Void, any Error>?>(nil)
    private let thread = Mutex<OwnThread?>(nil)

    /// Starts the client, and waits until it is connected.
    ///
    /// - Parameters:
    ///   - namespace: the client's network namespace; nil: this process's own.
    ///   - service: what it connects to, for errors.
    ///   - patience: seconds that it may take to connect.
    ///   - connect: opens its connections.
    ///   - run: what it does then, until `isStopping`; told whether it is in the real-time class.
    init(
        _ name: String, in namespace: NamedNetwork?, to service: String, patience: Double,
        connect: @escaping @Sendable () throws -> Void, run: @escaping @Sendable (ClientThread, Bool) -> Void
    ) throws {
        let network = try namespace?.open()
        let started = try OwnThread(name) { [self] in
            let connected = Result {
                if let network {
                    try check(
                        clx_setns(network.number, 0x4000_0000 /* CLONE_NEWNET */), "entering a network namespace")
                }
                try connect()
            }
            outcome.withLock { $0 = connected }
            if case .success = connected { run(self, Self.raisePriority()) }
        }
        thread.withLock { $0 = started }
        _ = waitUntil(seconds: patience, interval: 1) { outcome.withLock { $0 != nil } }
        switch outcome.withLock({ $0 }) {
        case .success: break
        case .failure(let error):
            stop()
            throw error
        case nil: throw TestbedError("\(service): no connection in \(plain(patience)) s")
        }
    }

    /// The client is to come to its end.
    var isStopping: Bool { isTold.load(ordering: .relaxed) }

    /// Has the client come to its end, and waits for it.
    func stop() {
        isTold.store(true, ordering: .relaxed)
        let started = thread.withLock { thread -> OwnThread? in
            defer { thread = nil }
            return thread
        }
        started?.join()
    }

    private static func raisePriority() -> Bool {
        let isRealTime = clx_sched_set(0, SCHED_FIFO, 1) == 0
        if !isRealTime { _ = clx_setpriority(0, -15) }
        // Wake-ups to the microsecond instead of the default 50 µs.
        _ = clx_prctl(29 /* PR_SET_TIMERSLACK */, 1, 0, 0, 0)
        return isRealTime
    }
}
