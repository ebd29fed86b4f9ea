// The testbed's network: made in well under a second, removed completely, whatever state it is in.
import CLinux
import Glibc
import LinuxKernel

/// The namespaces, links and bridges of a `Topology`.
public struct EdgeNetwork: Sendable {
    public let topology: Topology
    public init(_ topology: Topology) { self.topology = topology }

    /// Makes everything. The caller has written the testbed's state file before.
    ///
    /// - Parameter executable: the apus program, for the process of emulated links; nil: the running one.
    /// - Throws: when a namespace of that name exists, or a link cannot be made; what was made stays for `down`.
    public func up(executable: String? = nil) throws {
        guard geteuid() == 0 else { throw TestbedError("the testbed needs root: it makes network namespaces") }
        for namespace in topology.namespaces {
            guard !namespace.exists else {
                throw TestbedError(
                    "network namespace \(namespace.name) exists: `apus testbed down` removes an old testbed")
            }
        }
        for namespace in topology.namespaces { try namespace.create() }
        try makeCables(executable: executable)
        try joinHosts()
        try joinAccessPoints()
        try joinUserDevices()
        try joinSwitch()
        for namespace in topology.namespaces { try namespace.steerReceiving() }
        for host in topology.hosts { try awaitBackhaulPorts(of: host) }
    }

    /// A port drops what comes until the kernel has looked at its carrier, up to a second late. Nothing else would
    /// notice here: by these ports frames follow containers that move.
    private func awaitBackhaulPorts(of host: EdgeHost) throws {
        let route = try NetlinkSocket(in: NetworkNamespace(opening: host.namespace.path))
        let ports = try topology.hosts.filter { $0 != host }.map { try route.link(host.backhaulPort(to: $0)).index }
        let came = try waitUntil(seconds: 10) {
            try ports.allSatisfy { try route.portState(of: $0) == BridgePort.State.forwarding.rawValue }
        }
        guard came else { throw TestbedError("the backhaul ports of \(host.name) see no carrier") }
    }

    private func joinHosts() throws {
        for host in topology.hosts {
            var lines = [
                "link set lo up",
                bridge(mac: host.bridgeMAC),
                // The host speaks to the access network through a port like a container's. An address on the bridge
                // itself would send broadcasts into every port: flood flags do not hold for what a bridge originates.
                "link add host0 address \(host.accessMAC) type veth peer name host0p",
                "link set host0p master br0",
                "link set acc0 master br0",
                "addr add \(host.accessAddress)/24 dev host0",
                // One address for all its links to other hosts: each has a route of its own.
                "addr add \(host.backhaulAddress)/32 dev lo",
            ]
            for peer in topology.hosts where peer != host {
                let (port, link) = (host.backhaulPort(to: peer), host.backhaulLink(to: peer))
                lines += [
                    "link set \(port) master br0",
                    // A second path between the edges would be a loop without spanning tree: so nothing is flooded
                    // into it and nothing learned from it.
                    "link set \(port) type bridge_slave flood off mcast_flood off bcast_flood off learning off",
                    "link set \(port) up", "link set \(link) up",
                    "route add \(peer.backhaulAddress)/32 dev \(link) src \(host.backhaulAddress)",
                ]
            }
            lines += ["acc0", "host0p", "host0", "br0"].map { "link set \($0) up" }
            try ip(in: host.namespace, lines)
        }
    }

    private func joinAccessPoints() throws {
        for point in topology.accessPoints {
            let far = point.host.flatMap(topology.host)?.namespace ?? topology.access
            try ip(
                in: point.namespace,
                [
                    "link set lo up", bridge(mac: point.bridgeMAC),
                    "link add up0 type veth peer name \(point.uplinkPort) netns \(far.name)",
                    "link set up0 master br0", "link set up0 up", "link set br0 up",
                ] + topology.userDevices.map { "link set \($0.farPort) up" })
            guard point.host != nil else { continue }
            try ip(in: far, ["link set \(point.uplinkPort) master br0", "link set \(point.uplinkPort) up"])
        }
    }

    private func joinUserDevices() throws {
        for user in topology.userDevices {
            var lines = ["link set lo up"]
            if user.accessPoint != nil {
                // Without a port that forwards a bridge loses its carrier, and for up to a second after its return
                // nothing is sent (the kernel looks at carriers once a second): this port always forwards, and leads
                // nowhere.
                lines += [
                    bridge(mac: user.mac), "link add hold type veth peer name nowhere", "link set hold master br0",
                    "link set hold type bridge_slave flood off mcast_flood off bcast_flood off learning off",
                    "link set nowhere up", "link set hold up",
                ]
                for point in topology.accessPoints {
                    let radio = user.radio(to: point)
                    // What it knew by one access point would be wrong at the next: it sends to the one it is attached
                    // to.
                    lines += [
                        "link set \(radio) master br0", "link set \(radio) type bridge_slave learning off",
                        "link set \(radio) up",
                    ]
                }
            }
            lines += ["addr add \(user.address)/24 dev \(user.interface)", "link set \(user.interface) up"]
            try ip(in: user.namespace, lines)
        }
        guard !topology.accessPoints.isEmpty else { return }
        for user in topology.userDevices {
            try Attachment(user, topology).begin(at: user.accessPoint.flatMap(topology.accessPoint))
        }
        // Only now, when each user has one port that is not silent: several would have closed loops.
        for point in topology.accessPoints {
            try ip(in: point.namespace, topology.userDevices.map { "link set \($0.farPort) master br0" })
        }
    }

    private func joinSwitch() throws {
        let ports =
            topology.hosts.map(\.corePort) + topology.accessPoints.filter { $0.host == nil }.map(\.uplinkPort)
            + topology.userDevices.filter { $0.accessPoint == nil }.map(\.farPort)
        try ip(
            in: topology.access,
            ["link set lo up", bridge(mac: "02:a9:00:00:01:01"), "link set br0 up"]
                + ports.flatMap { ["link set \($0) master br0", "link set \($0) up"] })
    }

    /// A bridge that forwards at once and keeps its address when ports come and go.
    private func bridge(mac: String) -> String {
        "link add br0 address \(mac) type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    }

    /// Removes everything; calling it again does nothing.
    public func down() {
        let own = getpid()
        for namespace in topology.namespaces where namespace.exists {
            ProcessTable.end(namespace.processes().filter { $0 != own }, grace: 0)
            // The kernel takes a namespace apart some time after its last holder: the links go now. What cannot be
            // removed now goes with the namespace.
            guard let route = try? NetlinkSocket(in: NetworkNamespace(opening: namespace.path)) else { continue }
            for link in (try? route.links()) ?? [] where link.name != "lo" { try? route.delete(link: link.index) }
        }
        for namespace in topology.namespaces { namespace.delete() }
        // Ours only if it is empty and nothing is mounted there; otherwise the call fails, as it should.
        rmdir(NamedNetwork.folder)
    }
}

extension EdgeNetwork {
    /// Carries out lines of ip(8) in a namespace.
    func ip(in namespace: NamedNetwork, _ lines: [String]) throws {
        try runProgram("ip", ["-batch", "-"], input: lines.joined(separator: "\n") + "\n", namespace: namespace)
    }
}
