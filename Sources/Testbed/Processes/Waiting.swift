// Waiting for something to become so.
import Glibc
import LinuxKernel

/// Sleeps until a deadline passes or the condition holds, asking every `interval` milliseconds.
func waitUntil(seconds: Double, interval: Double = 5, _ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = monotonicNow() + Int64(seconds * 1e9)
    while true {
        if try condition() { return true }
        if monotonicNow() >= deadline { return false }
        usleep(UInt32(interval * 1000))
    }
}
