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
    /// - Throws: when a namespace of that name exists, or a link cannot be made; what was made stays for `down`.
    public func up() throws {
        guard geteuid() == 0 else { throw TestbedError("the testbed needs root: it makes network namespaces") }
        for namespace in topology.namespaces {
            guard !namespace.exists else {
                throw TestbedError(
                    "network namespace \(namespace.name) exists: `apus testbed down` removes an old testbed")
            }
        }
        for namespace in topology.namespaces { try namespace.create() }
        try ip(in: topology.access, ["link set lo up", bridge(mac: "02:a9:00:00:01:01"), "link set br0 up"])
        let (a, b) = (topology.hosts[0], topology.hosts[1])
        // Links that join two namespaces are made from the first; their peers appear in the second.
        try ip(
            in: a.namespace,
            [
                "link add \(a.backhaulPort) type veth peer name \(b.backhaulPort) netns \(b.name)",
                "link add \(a.backhaulLink) type veth peer name \(b.backhaulLink) netns \(b.name)",
            ])
        for host in topology.hosts { try up(host) }
        try ip(
            in: topology.userDevice,
            [
                "link set lo up",
                "link add eth0 address 02:a9:00:00:02:01 type veth peer name ue netns \(topology.access.name)",
                "addr add \(topology.userDeviceAddress)/24 dev eth0",
                "link set eth0 up",
            ])
        try ip(
            in: topology.access,
            topology.hosts.map { "p\($0.number)" }.flatMap { ["link set \($0) master br0", "link set \($0) up"] }
                + ["link set ue master br0", "link set ue up"])
        for namespace in topology.namespaces { try namespace.steerReceiving() }
    }

    private func up(_ host: EdgeHost) throws {
        try ip(
            in: host.namespace,
            [
                "link set lo up",
                bridge(mac: "02:a9:00:00:01:1\(host.number)"),
                // The host speaks to the access network through a port like a container's. An address on the bridge
                // itself would send broadcasts into every port: flood flags do not hold for what a bridge originates.
                "link add host0 address \(host.accessMAC) type veth peer name host0p",
                "link set host0p master br0",
                "link add acc0 type veth peer name p\(host.number) netns \(topology.access.name)",
                "link set acc0 master br0",
                "link set \(host.backhaulPort) master br0",
                // A second path between the edges would be a loop without spanning tree: so nothing is flooded into
                // it and nothing learned from it.
                "link set \(host.backhaulPort) type bridge_slave"
                    + " flood off mcast_flood off bcast_flood off learning off",
                "addr add \(host.accessAddress)/24 dev host0",
                "addr add \(host.backhaulAddress)/24 dev \(host.backhaulLink)",
                "link set acc0 up", "link set \(host.backhaulPort) up", "link set \(host.backhaulLink) up",
                "link set host0p up", "link set host0 up", "link set br0 up",
            ])
        try shape(host, topology.backhaul)
    }

    /// Gives the backhaul another rate, each way, while it stands.
    func shape(_ rate: LinkRate) throws {
        for host in topology.hosts {
            // Without a shaper there is nothing to delete.
            _ = try? runProgram("tc", ["qdisc", "del", "dev", host.backhaulLink, "root"], namespace: host.namespace)
            try shape(host, rate)
        }
    }

    private func shape(_ host: EdgeHost, _ rate: LinkRate) throws {
        guard let rate = rate.bitsPerSecond else { return }
        // A bucket below 128 kB misses the rate at 1 Gbit/s: it must hold what passes between two timer ticks.
        let burst = max(131_072, rate / 8 / 1000 * 2)
        let link = host.backhaulLink
        let shape = "rate \(rate)bit burst \(burst)b cburst \(burst)b quantum 65536"
        try runProgram(
            "tc", ["-batch", "-"],
            input: """
                qdisc add dev \(link) root handle 1: htb default 1
                class add dev \(link) parent 1: classid 1:1 htb \(shape)

                """, namespace: host.namespace)
    }

    /// A bridge that forwards at once and keeps its address when ports come and go.
    private func bridge(mac: String) -> String {
        "link add br0 address \(mac) type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    }

    private func ip(in namespace: NamedNetwork, _ lines: [String]) throws {
        try runProgram("ip", ["-batch", "-"], input: lines.joined(separator: "\n") + "\n", namespace: namespace)
    }

    /// Removes everything, what is left of a broken one too; calling it again does nothing.
    public func down() {
        let own = getpid()
        for namespace in topology.namespaces where namespace.exists {
            ProcessTable.end(namespace.processes().filter { $0 != own }, grace: 0)
            // The kernel takes a namespace apart some time after its last holder: the links go now.
            _ = try? runProgram(
                "ip", ["-force", "-batch", "-"],
                input: ["br0", "acc0", "x20", "bkh0", "host0", "eth0"].map { "link del \($0)\n" }.joined(),
                namespace: namespace)
        }
        for namespace in topology.namespaces { namespace.delete() }
        // Ours only if it is empty and nothing is mounted there; otherwise the call fails, as it should.
        rmdir(NamedNetwork.folder)
    }
}
