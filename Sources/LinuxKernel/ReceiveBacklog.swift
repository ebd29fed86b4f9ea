// Frames that a veth pair has passed on and the receiving side's kernel has not looked at yet.
import Glibc

public enum ReceiveBacklog {
    /// Waits until each processor has been seen without frames in its backlog, at most for so many milliseconds.
    ///
    /// A softirq usually empties it at once; one put off to its thread waits for a processor, and a frame on its way
    /// into or out of a port that is muted meanwhile would be lost.
    /// - Returns: whether all of them were seen empty.
    public static func drain(milliseconds: Double) throws(KernelError) -> Bool {
        try drain(milliseconds: milliseconds, lengths)
    }

    static func drain(milliseconds: Double, _ lengths: () throws(KernelError) -> [Int]) throws(KernelError) -> Bool {
        let deadline = monotonicNow() + Int64(milliseconds * 1e6)
        var busy: Set<Int>?
        while true {
            let now = Set(try lengths().enumerated().filter { $0.element > 0 }.map(\.offset))
            busy = busy?.intersection(now) ?? now
            if busy!.isEmpty { return true }
            if monotonicNow() > deadline { return false }
            usleep(20)
        }
    }

    /// Frames in the backlog of each processor: the twelfth column of softnet_stat, since Linux 5.10.
    static func lengths() throws(KernelError) -> [Int] {
        try SmallFile.text("/proc/net/softnet_stat").split(separator: "\n").map { line in
            let words = line.split(separator: " ")
            return words.count > 11 ? Int(words[11], radix: 16) ?? 0 : 0
        }
    }
}
