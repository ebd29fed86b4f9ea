// Whether a host can take a container, by what its source says of it.
import Containers
import Engine
import Foundation
import LinuxKernel

/// Looks for what keeps a host from taking what it is offered.
struct Admission {
    private let offer: Checked<WireOffer>
    private let host: SessionHost

    init(_ offer: Checked<WireOffer>, _ host: SessionHost) { (self.offer, self.host) = (offer, host) }

    /// Every reason for which this host cannot take the container.
    func refusals() throws -> [String] {
        var reasons: [String] = []
        let directory = try host.layout.container(offer.container)
        if directory.exists {
            reasons.append(
                "this host has a container \(offer.container) already: remove that "
                    + "(`apus rm --host \(host.name) \(offer.container)`)")
        }
        let config = try ContainerConfig(json: [UInt8](offer.config))
        reasons += config.obstacles()
        reasons += config.excess(
            over: host.allowances, bundle: directory.bundle, networkIsOurs: !offer.network.isEmpty)
        let needs = config.requirements(
            runtime: offer.runtime, runtimeVersion: offer.runtimeVersion, bundle: directory.bundle)
        do throws(RuntimeError) {
            reasons += needs.missing(runtime: host.runtime.kind, runtimeVersion: try host.runtime.version())
        } catch {
            reasons.append("this host's \(host.runtime.kind) does not answer (\(error)): install it")
        }
        reasons += host.facts.reasonsAgainst(taking: try JSONDecoder().decode(KernelFacts.self, from: offer.kernel))
        if try offer.boot != bootIdentity(), !Clocks.areSupported {
            reasons.append(
                "this host has another monotonic clock, and its kernel no time namespaces, by which the container "
                    + "could keep its own")
        }
        reasons += ResourceLimits.reasonsAgainst(offer.limits)
        let free = Self.availableMemory()
        if free < offer.residentBytes {
            reasons.append(
                "this host has \(free >> 20) MiB of memory available and the container holds "
                    + "\(offer.residentBytes >> 20) MiB: free some")
        }
        let source = Peer(name: offer.sourceHost, address: PeerAddress(offer.sourceAddress))
        if !offer.network.isEmpty, host.attachment(offer.container, source) == nil {
            reasons.append(
                "this host has no bridge for the container's network, or no port of it towards \(offer.sourceHost): "
                    + "give its agent --bridge and --backhaul, or port= of the --peer")
        }
        return reasons
    }

    /// MemAvailable.
    private static func availableMemory() -> UInt64 {
        let text = (try? SmallFile.text("/proc/meminfo")) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") } ?? ""
        return (line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? .max / 1024) * 1024
    }
}
