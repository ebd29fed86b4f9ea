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
