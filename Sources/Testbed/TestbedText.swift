// A testbed's status for a person to read.

extension Testbed.Status {
    public func json() throws -> String { String(decoding: try jsonBytes(self), as: UTF8.self) }
}

extension Testbed {
    public func text(_ status: Status) -> String {
        var lines = ["testbed \(status.instance) is \(status.stage)"]
        if status.stage == "up", topology.hasMachines {
            lines.append("")
            lines.append("  host          connection  address")
            for host in topology.hosts {
                let agent = status.agents.first { $0.host == host.name }
                let state = agent.map { $0.running ? "\($0.pid ?? 0)" : "ended" } ?? "none"
                lines.append(
                    "  " + host.name.padded(14) + state.padded(12) + "\(host.machine?.address.description ?? "")")
            }
            if status.agents.contains(where: { !$0.running }) {
                lines.append("  `apus testbed connect` connects again")
            }
        } else if let rate = status.backhaul {
            lines.append("")
            lines.append("  host          agent     access       backhaul (\(rate))")
            for host in topology.hosts {
                let agent = status.agents.first { $0.host == host.name }
                let state = agent.map { $0.running ? "\($0.pid ?? 0)" : "ended" } ?? "none"
                lines.append(
                    "  " + host.name.padded(14) + state.padded(10) + host.accessAddress.padded(13)
                        + host.backhaulAddress)
            }
            for user in topology.userDevices { lines.append("  " + user.name.padded(24) + user.address) }
        }
        if !status.checks.isEmpty {
            lines.append("")
            for check in status.checks {
                lines.append("  \(check.passed ? "ok  " : "FAIL") \(check.name): \(check.detail)")
            }
        }
        if status.stage != "up" && !status.remains.isEmpty {
            lines.append("")
            lines.append("  left over (`apus testbed down` removes it):")
            lines += status.remains.map { "  - \($0)" }
        }
        return lines.joined(separator: "\n")
    }
}

extension Testbed {
    public static func json(_ links: [TestbedLinkStatus]) throws -> String {
        String(decoding: try jsonBytes(links), as: UTF8.self)
    }

    /// A table of links, two lines each.
    public static func text(_ links: [TestbedLinkStatus]) -> String {
        var table = TextTable([
            .init("kind"), .init("from"), .init("to"), .init("rate", .right),
            .init("delay\nms", .right), .init("jitter\nms", .right), .init("loss\n%", .right),
            .init("reorder\n%", .right), .init("frames", .right),
            .init("lost", .right), .init("over-\nflowed", .right),
            .init("remark"),
        ])
        for status in links {
            let link = status.link
            for direction in LinkDirection.allCases {
                let (quality, isForward) = (link[direction], direction == .forward)
                let counters = isForward ? status.forward : status.backward
                func count(_ path: KeyPath<LinkCounters, UInt64>) -> String {
                    counters.map { "\($0[keyPath: path])" } ?? ""
                }
                table.add([
                    isForward ? link.kind.rawValue : "", isForward ? link.a : link.b, isForward ? link.b : link.a,
                    "\(quality.rate)", plain(quality.delay), plain(quality.jitter), plain(quality.loss),
                    plain(quality.reorder), count(\.frames), count(\.lost), count(\.overflowed),
                    isForward ? status.problem ?? status.trace.map { "plays \($0)" } ?? "" : "",
                ])
            }
        }
        return table.lines(indent: "").joined(separator: "\n")
    }
}
