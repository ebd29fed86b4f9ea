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
    /// Checks that each user device reaches all edge hosts, that the routed backhaul answers between any two, and that
    /// these see each other's MAC addresses on the access network (one layer 2). Takes some milliseconds; five seconds
    /// more for each that fails: the kernel may look at a new link's carrier a second late, or later where many links
    /// come and go, and ARP asks once a second.
    public func check() -> [NetworkCheck] {
        let hosts = topology.hosts
        var checks = topology.userDevices.flatMap { user in
            hosts.map { ping("\(user.name) reaches \($0.name)", from: user.namespace, to: $0.accessAddress) }
        }
        for (index, here) in hosts.enumerated() {
            for there in hosts[(index + 1)...] {
                // Between two alone it needs no names.
                let name = hosts.count == 2 ? "backhaul" : "backhaul \(here.name) – \(there.name)"
                checks.append(ping(name, from: here.namespace, to: there.backhaulAddress))
            }
        }
        for here in hosts { checks += hosts.filter { $0 != here }.map { sees(here, $0) } }
        if let process = linkProcess { checks.append(process) }
        return checks
    }

    /// Five seconds, and what the slowest links add to a round trip over several of them.
    private var patience: Double {
        5 + 0.008 * (topology.links.map { max($0.forward.delay, $0.backward.delay) }.max() ?? 0)
    }

    /// Emulated links are silent without their process.
    private var linkProcess: NetworkCheck? {
        let count = topology.links.count { $0.isEmulated }
        if count == 0 { return nil }
        let runs = LinkService(instance: topology.instance).isRunning
        return NetworkCheck(
            name: "\(count) emulated links", passed: runs, detail: runs ? "their process answers" : "no process answers"
        )
    }

    private func ping(_ name: String, from namespace: NamedNetwork, to address: String) -> NetworkCheck {
        do {
            let time = try Ping.roundTrip(from: namespace, to: address, seconds: patience)
            return NetworkCheck(name: name, passed: true, detail: "\(Double(time / 100) / 10) µs round trip")
        } catch {
            return NetworkCheck(name: name, passed: false, detail: "\(error)")
        }
    }

    /// Whether a host's bridge has learned another host's address on its access port.
    private func sees(_ here: EdgeHost, _ there: EdgeHost) -> NetworkCheck {
        let name = "\(here.name) sees \(there.name)'s MAC"
        do {
            _ = try Ping.roundTrip(from: here.namespace, to: there.accessAddress, seconds: patience)
            let route = try NetlinkSocket(in: NetworkNamespace(opening: here.namespace.path))
            let port = try route.link("acc0").index
            let found = try route.forwardingEntries().contains {
                $0.mac == MACAddress(there.accessMAC) && $0.port == port
            }
            return NetworkCheck(name: name, passed: found, detail: found ? "on acc0" : "not in the bridge's table")
        } catch {
            return NetworkCheck(name: name, passed: false, detail: "\(error)")
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
