import ArgumentParser
import Testbed

/// `apus testbed link`: shows links, changes one, plays a trace on it.
struct TestbedLinkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "link", abstract: "Show the links of a testbed, change one, or play a trace on it.",
        discussion: """
            A link is named by its two ends: two hosts, a host and "access" (the core switch), a user and an access point. \
            Without ends all links are shown. A link that is not emulated knows a rate and a queue only.
            """)

    @Argument(help: ArgumentHelp("The link's two ends.", valueName: "end"))
    var ends: [String] = []
    @OptionGroup var instance: TestbedCommand.Instance
    @Option(help: "1gbit, 5.5mbit, 300kbit or unlimited.") var rate: String?
    @Option(help: ArgumentHelp("Milliseconds, one way.", valueName: "ms")) var delay: String?
    @Option(help: ArgumentHelp("Milliseconds around the delay.", valueName: "ms")) var jitter: String?
    @Option(help: ArgumentHelp("Of the frames, dropped.", valueName: "percent")) var loss: String?
    @Option(help: ArgumentHelp("Of the frames, let through before those that wait.", valueName: "percent"))
    var reorder: String?
    @Option(help: ArgumentHelp("What may wait for the rate: 65536, 1MiB.", valueName: "bytes")) var queue: String?
    @Flag(help: "Change the direction from the first end to the second only.") var oneWay = false
    @Option(
        help: ArgumentHelp(
            "Play a trace (CSV: time in seconds, properties); forward is from the first end to the second.",
            valueName: "file"), completion: .file(extensions: ["csv"]))
    var trace: String?
    @Flag(name: .customLong("repeat"), help: "Play the trace again and again.") var repeated = false
    @Flag(help: "End the trace that is being played.") var stop = false

    func validate() throws {
        let change = try change()
        if ends.count != 2 && (!ends.isEmpty || !change.isEmpty || trace != nil || stop) {
            throw ValidationError("name the link by its two ends: apus testbed link edge-a edge-b")
        }
        if repeated && trace == nil { throw ValidationError("--repeat needs --trace") }
        if oneWay && change.isEmpty { throw ValidationError("--one-way says nothing without a change") }
        if [trace != nil, stop, !change.isEmpty].filter({ $0 }).count > 1 {
            throw ValidationError("one of a change, --trace and --stop at a time")
        }
    }

    private func change() throws -> LinkChange {
        var change = LinkChange()
        let given: [(LinkProperty, String?)] = [
            (.rate, rate), (.delay, delay), (.jitter, jitter), (.loss, loss), (.reorder, reorder), (.queue, queue),
        ]
        for case (let property, let text?) in given {
            guard property.set(text, in: &change) else {
                throw ValidationError("--\(property.rawValue) \(text): not \(property.expected)")
            }
        }
        return change
    }

    func run() async throws {
        let testbed = try Testbed(standing: instance.instance)
        var chosen: TestbedLink?
        if ends.count == 2 {
            guard let link = testbed.topology.link(ends[0], ends[1]) else {
                throw TestbedError("there is no link between \(ends[0]) and \(ends[1]): `apus testbed link` lists all")
            }
            try act(on: link, of: testbed)
            chosen = link
        }
        let links = try testbed.linkStatus().filter {
            chosen == nil || $0.link.a == chosen!.a && $0.link.b == chosen!.b
        }
        print(instance.json ? try Testbed.json(links) : Testbed.text(links))
        if links.contains(where: { $0.problem != nil }) { throw ExitCode(1) }
    }

    private func act(on link: TestbedLink, of testbed: Testbed) throws {
        let isTurned = testbed.topology.link(ends[0], ends[1])?.a != testbed.topology.name(of: ends[0])
        let change = try change()
        if !change.isEmpty {
            let direction: LinkDirection? = oneWay ? (isTurned ? .backward : .forward) : nil
            try testbed.change(link, direction, to: change)
        }
        if stop { try testbed.stopPlaying(link) }
        if let trace {
            var trace = try LinkTrace(contentsOf: trace)
            if isTurned {
                for index in trace.steps.indices {
                    (trace.steps[index].forward, trace.steps[index].backward) =
                        (trace.steps[index].backward, trace.steps[index].forward)
                }
            }
            try testbed.play(trace, on: link, repeated: repeated)
        }
    }
}
