// ICMP echo, without starting a program.
import CLinux
import Glibc
import LinuxKernel

enum Ping {
    /// Nanoseconds until the answer; asks again every 50 ms (the first request may wait for ARP).
    static func roundTrip(from namespace: NamedNetwork, to address: String, seconds: Double) throws -> Int64 {
        try namespace.run { try Echo(to: address).roundTrip(seconds: seconds) }
    }
}

/// Asks one address, from the network namespace of the thread that made it.
final class Echo {
    private let address: String
    private let descriptor: FileDescriptor
    /// Tells our answers from those to other pings of this address.
    private let identifier = UInt16(truncatingIfNeeded: clx_gettid())
    private var sequence: UInt16 = 0
    /// When requests were sent that have no answer yet.
    private var asked: [UInt16: Int64] = [:]

    init(to address: String) throws {
        self.address = address
        let descriptor = FileDescriptor(
            owning: try checkC(
                socket(AF_INET, Int32(SOCK_RAW.rawValue) | O_CLOEXEC, Int32(IPPROTO_ICMP)), "opening a raw socket"))
        var peer = try SocketAddress.ipv4(address, port: 0)
        _ = try SocketAddress.with(&peer) {
            try checkC(connect(descriptor.number, $0, $1), "connecting to \(address)")
        }
        self.descriptor = descriptor
    }

    /// Nanoseconds until an answer; asked again every 50 ms, and an answer to any of the requests counts.
    func roundTrip(seconds: Double) throws -> Int64 {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        repeat {
            if let time = once(milliseconds: 50) { return time }
        } while monotonicNow() <= deadline
        throw TestbedError("no answer from \(address) within \(seconds) s")
    }

    /// Asks, and waits for an answer to this request or one before it; nil: none came in time.
    func once(milliseconds: Int64) -> Int64? {
        sequence &+= 1
        // Type 8 (echo request), code 0, checksum, identifier, sequence.
        var words: [UInt16] = [0x0800, 0, identifier, sequence]
        words[1] = ~words.reduce(0) { sum, word in
            let (value, carry) = sum.addingReportingOverflow(word)
            return value + (carry ? 1 : 0)
        }
        let packet = words.flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] }
        let sent = monotonicNow()
        asked[sequence] = sent
        _ = send(descriptor.number, packet, packet.count, 0)
        while monotonicNow() < sent + milliseconds * 1_000_000 {
            var entry = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, Int32(milliseconds)) > 0 else { break }
            var answer = [UInt8](repeating: 0, count: 256)
            let n = recv(descriptor.number, &answer, answer.count, 0)
            // An IPv4 header of 20 bytes comes first.
            guard n >= 28, answer[20] == 0, Array(answer[24..<26]) == Array(packet[4..<6]) else { continue }
            if let sent = asked.removeValue(forKey: UInt16(answer[26]) << 8 | UInt16(answer[27])) {
                return monotonicNow() - sent
            }
        }
        return nil
    }
}
