// CLOCK_MONOTONIC in nanoseconds: every time in Apus is read here.
import Glibc

/// Now, in nanoseconds of CLOCK_MONOTONIC.
@inline(__always)
public func monotonicNow() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}
