// The links of a standing testbed: shown, changed, and changed over time by a trace.
import LinuxKernel

/// A link as it is now.
public struct TestbedLinkStatus: Sendable, Codable {
    public var link: TestbedLink
    /// What passed so far; nil for a link without a link process. Of a backhaul: its routed part.
    public var forward: LinkCounters?
    public var backward: LinkCounters?
    /// The file of the trace that is being played.
    public var trace: String?
    /// Why it does not work as told, if it does not.
    public var problem: String?
}

extension Testbed {
    /// All links in the topology's order.
    public func linkStatus() throws -> [TestbedLinkStatus] {
        let state = try standing()
        let isServed = !links.processes.isEmpty
        let known = Dictionary(
            (isServed ? try links.status() : []).map { ($0.link.name, $0) }, uniquingKeysWith: { first, _ in first })
        return state.topology.links.map { link in
            guard let now = known[link.name] else {
                return TestbedLinkStatus(
                    link: link,
                    problem: link.isEmulated ? "the link process has ended: the link is silent" : nil)
            }
            var link = link
            (link.forward, link.backward) = (now.link.forward, now.link.backward)
            return TestbedLinkStatus(
                link: link, forward: now.forward, backward: now.backward, trace: now.trace, problem: now.problem)
        }
    }

    /// Changes a link at once, both directions if none is named. The record remembers it.
    ///
    /// - Throws: when the resulting quality is none, or more than a rate on a link that is not emulated.
    public func change(_ link: TestbedLink, _ direction: LinkDirection? = nil, to change: LinkChange) throws {
        var state = try standing()
        guard let index = state.topology.links.firstIndex(where: { $0.name == link.name }) else {
            throw TestbedError("testbed \(topology.instance) has no link \(link.name)")
        }
        var new = state.topology.links[index]
        if let now = try linkStatus().first(where: { $0.link.name == link.name })?.link {
            (new.forward, new.backward) = (now.forward, now.backward)
        }
        for way in LinkDirection.allCases where direction == nil || way == direction {
            new[way] = change.applied(to: new[way])
            if let mistake = new[way].mistake { throw TestbedError("link \(link.name): \(mistake)") }
        }
        guard new.isEmulated || new.isRateOnly else { throw Self.notEmulated(link) }
        let isServed = !links.processes.isEmpty
        for cable in state.topology.cables(of: new) {
            if isServed {
                try links.change(cable.name, .forward, to: LinkChange(cable.forward))
                try links.change(cable.name, .backward, to: LinkChange(cable.backward))
            } else {
                try Shaper.apply(cable.forward, to: cable.a)
                try Shaper.apply(cable.backward, to: cable.b)
            }
        }
        state.topology.links[index] = new
        try state.save()
    }

    /// Gives all backhaul links another rate, each way.
    public func setBackhaul(_ rate: LinkRate) throws {
        var change = LinkChange()
        change.rate = rate
        for link in try standing().topology.links where link.kind == .backhaul { try self.change(link, to: change) }
    }

    /// Plays a trace on a link from now on, in place of one that is being played. After its end the last values stay.
    ///
    /// - Parameter executable: the apus program, for the link process, which a testbed without emulated links gets for this; nil:
    ///   the running one.
    public func play(
        _ trace: LinkTrace, on link: TestbedLink, repeated: Bool = false, executable: String? = nil
    ) throws {
        let topology = try standing().topology
        guard let link = topology.links.first(where: { $0.name == link.name }) else {
            throw TestbedError("testbed \(topology.instance) has no link \(link.name)")
        }
        var end = link
        for step in trace.steps {
            (end.forward, end.backward) = (
                step.forward.applied(to: end.forward), step.backward.applied(to: end.backward)
            )
            guard link.isEmulated || end.isRateOnly else { throw Self.notEmulated(link) }
        }
        if links.processes.isEmpty {
            try links.start(topology.links.flatMap(topology.cables), executable: executable)
        }
        for cable in topology.cables(of: link) {
            var trace = trace
            // A backhaul's second pair of interfaces has no rate: see `cables`.
            for index in trace.steps.indices where cable.name != link.name {
                for key in [\LinkTrace.Step.forward, \.backward] {
                    (trace.steps[index][keyPath: key].rate, trace.steps[index][keyPath: key].queue) = (nil, nil)
                }
            }
            try links.play(trace, on: cable.name, repeated: repeated)
        }
    }

    /// Ends the trace that is being played on a link, if there is one; its values stay as they are.
    public func stopPlaying(_ link: TestbedLink) throws {
        let topology = try standing().topology
        guard !links.processes.isEmpty else { return }
        for cable in topology.cables(of: link) { try links.stopPlaying(cable.name) }
    }

    private static func notEmulated(_ link: TestbedLink) -> TestbedError {
        TestbedError(
            "link \(link.name) is a veth pair, which knows a rate and a queue only: give it \"emulated: true\" in the"
                + " topology's file")
    }
}
