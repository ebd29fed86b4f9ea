// How this process ends if it crashes.
import Glibc

enum Crash {
    /// A crash ends the process at once, by its signal.
    ///
    /// The Swift runtime's handlers stop a process that crashes for the seconds that another one needs to write a
    /// backtrace; that is how long a container would stay frozen, and its peer without an answer. The variable
    /// SWIFT_BACKTRACE comes too late here: the runtime has read it before the first line of ours.
    static func endsAtOnce() {
        for number in [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGQUIT] { signal(number, SIG_DFL) }
    }
}
