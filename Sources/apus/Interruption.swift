// Ctrl-C as an event, for commands that have something to end properly.
import Glibc
import LinuxKernel

/// A command for which Ctrl-C is not the end.
protocol Interruptible {}

enum Interruption {
    private static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        return set
    }

    /// To be called while there is one thread: others inherit it.
    static func block() {
        var set = signals
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Waits for Ctrl-C or SIGTERM, blocking the calling thread.
    static func wait() {
        var set = signals
        var signal: Int32 = 0
        while sigwait(&set, &signal) != 0 {}
    }

    /// Calls `body` with 1, 2, ... at each Ctrl-C or SIGTERM.
    static func each(_ body: @escaping @Sendable (Int) -> Void) throws {
        try OwnThread.start("apus-signals") {
            var count = 0
            while true {
                wait()
                count += 1
                body(count)
            }
        }
    }
}
