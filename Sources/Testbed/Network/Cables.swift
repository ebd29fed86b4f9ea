// Makes the pairs of interfaces that links consist of, and lets each direction do what its quality says.
import LinuxKernel

extension EdgeNetwork {
    /// Makes the pairs; both ends stay down and belong to no bridge yet.
    func makeCables(_ cables: [Cable]) throws {
        // Links that join two namespaces are made from the first; their peers appear in the second.
        for (namespace, cables) in Dictionary(grouping: cables, by: \.a.namespace) {
            try ip(
                in: namespace,
                cables.map { cable in
                    let mac = cable.a.mac.map { "address \($0) " } ?? ""
                    return "link add \(cable.a.interface) \(mac)type veth peer name \(cable.b.interface)"
                        + " netns \(cable.b.namespace.name)"
                })
        }
        let ends = cables.flatMap { [($0.a, $0.forth), ($0.b, $0.back)] }
        for (namespace, ends) in Dictionary(grouping: ends, by: \.0.namespace) {
            try tc(in: namespace, ends.flatMap { shaper($0.1, on: $0.0.interface) })
        }
    }

    /// Gives links that stand another quality.
    func shape(_ links: [TestbedLink]) throws {
        for cable in links.flatMap(topology.cables) {
            for (end, quality) in [(cable.a, cable.forth), (cable.b, cable.back)] {
                // Without a shaper there is nothing to delete.
                _ = try? runProgram(
                    "tc", ["qdisc", "del", "dev", end.interface, "root"], namespace: end.namespace)
                try tc(in: end.namespace, shaper(quality, on: end.interface))
            }
        }
    }

    /// What tc(8) has to do so that an interface sends at a rate.
    private func shaper(_ quality: LinkQuality, on interface: String) -> [String] {
        guard let rate = quality.rate.bitsPerSecond else { return [] }
        // A bucket below 128 kB misses the rate at 1 Gbit/s: it must hold what passes between two timer ticks.
        let burst = max(131_072, rate / 8 / 1000 * 2)
        var lines = [
            "qdisc add dev \(interface) root handle 1: htb default 1",
            "class add dev \(interface) parent 1: classid 1:1 htb"
                + " rate \(rate)bit burst \(burst)b cburst \(burst)b quantum 65536",
        ]
        if let queue = quality.queue {
            lines.append("qdisc add dev \(interface) parent 1:1 bfifo limit \(queue)")
        }
        return lines
    }

    private func tc(in namespace: NamedNetwork, _ lines: [String]) throws {
        guard !lines.isEmpty else { return }
        try runProgram("tc", ["-batch", "-"], input: lines.joined(separator: "\n") + "\n", namespace: namespace)
    }
}
