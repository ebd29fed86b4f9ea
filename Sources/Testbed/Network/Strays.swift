// What a testbed left whose record cannot be read: found by the names of its namespaces.
import LinuxKernel

extension Topology {
    /// The namespaces whose names begin with an instance's prefix, each taken for an edge host, which has most to
    /// remove.
    ///
    /// nil without a record, since then nothing was made; with none of such names; and for the default instance, whose
    /// names have no prefix to tell them from others'.
    init?(straysOf instance: String) {
        guard instance != Self.defaultInstance, !TestbedState.files(instance).isEmpty else { return nil }
        let prefix = "\(instance)-"
        // Instance "a" must not take those of instance "a-b" for its own.
        let others = fileNames(TestbedState.folder).compactMap { name -> String? in
            guard name.hasPrefix("testbed-"), name.hasSuffix(".json") else { return nil }
            return String(name.dropFirst(8).dropLast(5))
        }.filter { $0.hasPrefix(prefix) }
        let names = fileNames(NamedNetwork.folder).filter { name in
            name.hasPrefix(prefix) && !others.contains { name.hasPrefix("\($0)-") }
        }
        guard !names.isEmpty else { return nil }
        try? self.init(
            instance: instance, name: instance, hosts: names.map { String($0.dropFirst(prefix.utf8.count)) },
            accessPoints: [], users: [("ue", nil)]
        ) { _ in }
    }
}
