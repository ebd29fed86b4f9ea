// Makes the pairs of interfaces that links consist of, and lets each direction do what its quality says.
import LinuxKernel

extension EdgeNetwork {
    /// Makes the pairs; both ends stay down and belong to no bridge yet.
    ///
    /// - Parameter executable: the apus program, for the process of emulated links; nil: the running one.
    func makeCables(executable: String?) throws {
        let cables = topology.links.flatMap(topology.cables)
        // Links that join two namespaces are made from the first; their peers appear in the second.
        for (network, cables) in Dictionary(grouping: cables.filter { $0.means == .shaper }, by: \.a.network) {
            try ip(
                in: NamedNetwork(network),
                cables.map { cable in
                    let mac = cable.a.mac.map { "address \($0) " } ?? ""
                    return "link add \(cable.a.interface) \(mac)type veth peer name \(cable.b.interface)"
                        + " netns \(cable.b.network)"
                })
        }
        guard cables.allSatisfy({ $0.means == .shaper }) else {
            try LinkService(instance: topology.instance).start(cables, executable: executable)
            return
        }
        let ends = cables.flatMap { [($0.a, $0.forward), ($0.b, $0.backward)] }
        for (network, ends) in Dictionary(grouping: ends, by: \.0.network) {
            try Shaper.begin(ends.map { ($0.0.interface, $0.1) }, in: NamedNetwork(network))
        }
    }
}
