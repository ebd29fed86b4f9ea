// A shared layer 2 is assumed by the handover, so it is checked.
import CLinux
import Glibc
import LinuxKernel

/// One thing that was checked, and what came out.
public struct NetworkCheck: Sendable, Codable {
    public let name: String
    public let passed: Bool
    public let detail: String
}

extension EdgeNetwork {
    /// Checks that the user device reaches both edge hosts, that these see each other's MAC addresses on the access
    /// network (one layer 2), and that the routed backhaul answers. Takes some milliseconds, at most a few seconds.
    public func check() -> [NetworkCheck] {
        var checks: [NetworkCheck] = []
        func ping(_ name: String, from namespace: NamedNetwork, to address: String) {
            do {
                let time = try Ping.roundTrip(from: namespace, to: address, seconds: 2)
                checks.append(
                    NetworkCheck(name: name, passed: true, detail: "\(Double(time / 100) / 10) µs round trip"))
            } catch {
                checks.append(NetworkCheck(name: name, passed: false, detail: "\(error)"))
            }
        }
        let hosts = topology.hosts
        for host in hosts { ping("ue reaches \(host.name)", from: topology.userDevice, to: host.accessAddress) }
        ping("backhaul", from: hosts[0].namespace, to: hosts[1].backhaulAddress)
        for (here, there) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
            let name = "\(here.name) sees \(there.name)'s MAC"
            do {
                _ = try Ping.roundTrip(from: here.namespace, to: there.accessAddress, seconds: 2)
                let table = try runProgram("bridge", ["fdb", "show", "br", "br0"], namespace: here.namespace)
                let found = table.split(separator: "\n").contains {
                    $0.hasPrefix(there.accessMAC) && $0.contains("dev acc0")
                }
                checks.append(
                    NetworkCheck(name: name, passed: found, detail: found ? "on acc0" : "not in the bridge's table"))
            } catch {
                checks.append(NetworkCheck(name: name, passed: false, detail: "\(error)"))
            }
        }
        return checks
    }
}

/// ICMP echo, without starting a program.
enum Ping {
    /// Nanoseconds until the answer; asks again every 50 ms (the first request may wait for ARP).
    static func roundTrip(from namespace: NamedNetwork, to address: String, seconds: Double) throws -> Int64 {
        try namespace.run {
            let descriptor = FileDescriptor(
                owning: try checkC(
                    socket(AF_INET, Int32(SOCK_RAW.rawValue) | O_CLOEXEC, Int32(IPPROTO_ICMP)), "opening a raw socket"))
            var peer = try SocketAddress.ipv4(address, port: 0)
            _ = try SocketAddress.with(&peer) {
                try checkC(connect(descriptor.number, $0, $1), "connecting to \(address)")
            }
            let deadline = monotonicNow() + Int64(seconds * 1e9)
            // The identifier tells our answers from those to other pings of this address.
            let identifier = UInt16(truncatingIfNeeded: clx_gettid())
            for sequence in UInt16(1)... {
                // Type 8 (echo request), code 0, checksum, identifier, sequence.
                var words: [UInt16] = [0x0800, 0, identifier, sequence]
                words[1] = ~words.reduce(0) { sum, word in
                    let (value, carry) = sum.addingReportingOverflow(word)
                    return value + (carry ? 1 : 0)
                }
                let packet = words.flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] }
                let sent = monotonicNow()
                _ = send(descriptor.number, packet, packet.count, 0)
                while monotonicNow() < sent + 50_000_000 {
                    var entry = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
                    guard poll(&entry, 1, 50) > 0 else { break }
                    var answer = [UInt8](repeating: 0, count: 256)
                    let n = recv(descriptor.number, &answer, answer.count, 0)
                    // An IPv4 header of 20 bytes comes first.
                    if n >= 28 && answer[20] == 0 && Array(answer[24..<28]) == Array(packet[4..<8]) {
                        return monotonicNow() - sent
                    }
                }
                if monotonicNow() > deadline { break }
            }
            throw TestbedError("no answer from \(address) within \(seconds) s")
        }
    }
}

/// Socket addresses as the C functions want them.
enum SocketAddress {
    static func ipv4(_ address: String, port: UInt16) throws -> sockaddr_in {
        var result = sockaddr_in()
        result.sin_family = sa_family_t(AF_INET)
        result.sin_port = port.bigEndian
        guard inet_pton(AF_INET, address, &result.sin_addr) == 1 else {
            throw TestbedError("not an IPv4 address: \(address)")
        }
        return result
    }
    static func with<T>(
        _ address: inout sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> T
    ) rethrows -> T {
        // SAFETY: sockaddr_in is one of the layouts that a sockaddr pointer with its length may name.
        try withUnsafePointer(to: &address) {
            try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
