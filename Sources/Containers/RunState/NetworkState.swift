// What a container's network namespace holds: interfaces, addresses, routes, packet filters.
import CLinux
import LinuxKernel

struct NetworkState: Codable, Sendable, Equatable {
    struct Interface: Codable, Sendable, Equatable {
        var kind: String
        var mac: MACAddress?
        var mtu: Int
        var isUp: Bool
        /// With prefix length, sorted; without those that the kernel makes by itself.
        var addresses: [String]
    }
    /// By name.
    var interfaces: [String: Interface] = [:]
    /// "10.0.0.0/8 by 10.78.0.1 at eth0"; without those that come with an address.
    var routes: [String] = []
    /// Tables of packet filters: "iptables filter", "nftables inet fw".
    var filters: [String] = []
    /// Rules that choose a routing table, as the kernel has them.
    var rules: [[UInt8]] = []

    /// That of the calling thread's namespace.
    init() throws(KernelError) {
        let route = try NetlinkSocket()
        var names: [Int32: String] = [:], networks: Set<String> = []
        for link in try route.links() {
            let prefixes = try route.addresses(of: link.index)
            networks.formUnion(prefixes.map { "\($0.network) at \(link.name)" })
            names[link.index] = link.name
            interfaces[link.name] = Interface(
                kind: link.kind ?? "", mac: link.mac, mtu: link.mtu, isUp: link.isUp,
                addresses: prefixes.filter { !$0.isLinkLocal }.map(\.description).sorted())
        }
        for entry in try route.routes() {
            let place = names[entry.link] ?? "interface \(entry.link)"
            let target = entry.destination.map { "\($0)" } ?? "default"
            if entry.gateway == nil, let prefix = entry.destination,
                prefix.isLinkLocal || networks.contains("\(prefix.network) at \(place)")
            {
                continue
            }
            routes.append("\(target)\(entry.gateway.map { " by \($0)" } ?? "") at \(place)")
        }
        routes.sort()
        rules = try route.rules()
        filters = Self.filters()
    }

    fileprivate static func canonical(_ address: String) -> String { IPPrefix(address)?.description ?? address }

    private static func filters() -> [String] {
        var found: [String] = []
        for (file, program) in [("ip_tables", "iptables"), ("ip6_tables", "ip6tables"), ("arp_tables", "arptables")] {
            // Only there with the kernel's module.
            guard let names = try? SmallFile.text("/proc/thread-self/net/\(file)_names") else { continue }
            found += names.split(separator: "\n").map { "\(program) \($0)" }
        }
        // Refused by a kernel without nftables.
        let tables = (try? NetlinkSocket(.netfilter).filterTables()) ?? []
        return (found + tables.map { "nftables \($0)" }).sorted()
    }

    /// What keeps it from being made again from the container's network as it travels.
    ///
    /// - Parameter spec: the addresses of its interface are in it, whenever they were added.
    func obstacles(since made: NetworkState, _ spec: NetworkSpec?) -> [RunStateObstacle] {
        var found: [RunStateObstacle] = []
        for name in Set(interfaces.keys).union(made.interfaces.keys).sorted() {
            guard let now = interfaces[name] else {
                found.append(.init("interface \(name)", "removed at run time, not carried yet"))
                continue
            }
            guard let before = made.interfaces[name] else {
                found.append(.init("interface \(name)", "made at run time, not carried yet"))
                continue
            }
            let wanted = name == spec?.interface ? spec!.addresses.map(Self.canonical) : before.addresses
            for address in now.addresses where !wanted.contains(address) {
                found.append(.init("address \(address) of \(name)", "added at run time, not carried yet"))
            }
            for address in wanted where !now.addresses.contains(address) {
                found.append(.init("address \(address) of \(name)", "removed at run time, not carried yet"))
            }
            if now.mac != before.mac || now.mtu != before.mtu || now.isUp != before.isUp {
                found.append(
                    .init("interface \(name)", "its link address, MTU or state set at run time, not carried yet"))
            }
        }
        let gateways = spec?.defaultRoutes ?? []
        for route in routes where !made.routes.contains(route) && !gateways.contains(route) {
            found.append(.init("route \(route)", "added at run time, not carried yet"))
        }
        for route in made.routes where !routes.contains(route) && !route.hasPrefix("default by ") {
            found.append(.init("route \(route)", "removed at run time, not carried yet"))
        }
        for filter in filters where !made.filters.contains(filter) {
            found.append(.init("packet filter \(filter)", "made at run time, not carried yet"))
        }
        if Set(rules) != Set(made.rules) {
            found.append(.init("routing rules", "added or removed at run time, not carried yet"))
        }
        return found
    }
}

extension NetworkSpec {
    /// The same network with the addresses and default gateways that the container has now: what was added at run time
    /// travels so.
    public func current(of pid: Int32) throws(KernelError) -> NetworkSpec {
        let now = try ContainerThread.run(in: pid) { () throws(KernelError) in try NetworkState() }
        guard let found = now.interfaces[interface] else { return self }
        var spec = self
        // In their own order and spelling as long as they are the same.
        if Set(found.addresses) != Set(addresses.map(NetworkState.canonical)) { spec.addresses = found.addresses }
        if Set(now.routes.filter { $0.hasPrefix("default by ") }) != Set(defaultRoutes) {
            spec.gateways = now.routes.compactMap { route in
                let words = route.split(separator: " ")
                return words.count == 5 && words[0] == "default" && words[4] == interface ? String(words[2]) : nil
            }
        }
        return spec
    }

    fileprivate var defaultRoutes: [String] {
        gateways.map { "default by \(IPAddress($0)?.description ?? $0) at \(interface)" }
    }
}

extension IPPrefix {
    /// The prefix without the host's part.
    fileprivate var network: String {
        var bytes = address.bytes
        for bit in length..<bytes.count * 8 { bytes[bit / 8] &= ~(0x80 >> UInt8(bit % 8)) }
        return "\(IPAddress(bytes)!)/\(length)"
    }
    /// The kernel makes these by itself.
    fileprivate var isLinkLocal: Bool { address.isIPv6 && address.bytes[0] == 0xfe && address.bytes[1] & 0xc0 == 0x80 }
}
