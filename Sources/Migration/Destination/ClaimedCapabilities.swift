// A process's capabilities as another host tells them, against what its container's configuration gives.
import Containers
import Engine

extension CheckedTree {
    /// What threads claim that the configuration does not give, in words; empty: nothing.
    ///
    /// The stub has capabilities that the restore needs, so the kernel would let a thread keep any of them. A program
    /// cannot have more than its runtime gave it: an image in which one has is not what ran.
    func capabilities(beyond config: ContainerConfig) -> [String] {
        let given = config.capabilityMask
        var claimed: UInt64 = 0
        for thread in threads.flatMap(\.threads) {
            let own = thread.credentials
            claimed |= own.capInheritable | own.capPermitted | own.capEffective | own.capBounding | own.capAmbient
        }
        let excess = claimed & ~given
        return (0..<64).filter { excess & 1 << $0 != 0 }.map {
            "a thread claims capability number \($0), which the container's configuration does not give"
        }
    }
}
