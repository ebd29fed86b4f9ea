// How near emulated links come to what they are told.
import FoundationEssentials
import Glibc
import LinuxKernel

extension Bench {
    /// Two hosts without agents, one link between them, its quality changed from measurement to measurement.
    func links(_ result: inout BenchCase, _ teardown: Teardown) async throws {
        let testbed = Testbed(try Topology(instance: options.instance, backhaul: .unlimited))
        let bed = try LinkBench(testbed, teardown, progress: { [progress] in if !teardown.isEnding { progress($0) } })
        var failure: (any Error)?
        do {
            let repetitions = min(options.repetitions, 5)
            try bed.rates(repetitions, &result)
            try bed.delays(&result)
            try bed.jitter(&result)
            try bed.losses(&result)
            try bed.throughput(repetitions, &result)
            let status = try bed.service.status()
            let problems = status.compactMap(\.problem)
            result.verdicts.append(
                Verdict("the link works as told", problems.isEmpty, problems.isEmpty ? "no problem" : problems[0]))
        } catch { failure = error }
        try teardown.making { testbed.down() }
        let left = testbed.leftovers()
        result.verdicts.append(
            Verdict(
                "nothing left behind", left.isEmpty,
                left.isEmpty ? "no process, namespace or folder" : left.joined(separator: ", ")))
        result.notes += [
            "rates: one TCP stream by iperf3, 3 s after 1 s that is not counted, against rate × 1448 / 1514:"
                + " a full frame's payload over its size with the Ethernet header",
            "delays: half the round trip of echo requests minus what was asked for, both directions alike; under load, one"
                + " TCP stream of 500 Mbit/s goes the same way. The round trip holds two passes through each host's stack",
            "loss: datagrams of 1,000 bytes at 50 Mbit/s by iperf3; of TCP segments, by the link's own counters",
        ]
        if let failure { throw failure }
    }
}

/// The link that is measured.
private struct LinkBench: Sendable {
    let service: LinkService
    let ends: [NamedNetwork]
    let progress: @Sendable (String) -> Void
    static let addresses = ["10.79.0.1", "10.79.0.2"]

    init(_ testbed: Testbed, _ teardown: Teardown, progress: @escaping @Sendable (String) -> Void) throws {
        (service, ends, self.progress) = (testbed.links, testbed.topology.hosts.map(\.namespace), progress)
        try teardown.making {
            // `down` finds them by their names.
            for end in ends { try end.create() }
            try service.start([
                EmulatedLink(
                    name: "bench", a: LinkEnd(network: ends[0].name, interface: "tap0"),
                    b: LinkEnd(network: ends[1].name, interface: "tap0"))
            ])
            for (end, address) in zip(ends, Self.addresses) {
                try runProgram(
                    "ip", ["-batch", "-"],
                    input: "link set lo up\naddr add \(address)/24 dev tap0\nlink set tap0 up\n", namespace: end)
            }
        }
    }

    /// Both directions, or one, from a link that does nothing.
    private func set(_ direction: LinkDirection? = nil, _ body: (inout LinkQuality) -> Void) throws {
        try service.change("bench", to: LinkChange(LinkQuality()))
        var quality = LinkQuality()
        body(&quality)
        try service.change("bench", direction, to: LinkChange(quality))
    }

    func rates(_ repetitions: Int, _ result: inout BenchCase) throws {
        for (text, delay) in [("10mbit", 0.0), ("100mbit", 0), ("1gbit", 0), ("1gbit", 5)] {
            let rate = LinkRate(text)!
            try set {
                $0.rate = rate
                $0.delay = delay
            }
            let expected = Double(rate.bitsPerSecond!) * 1448 / 1514
            let found = try (0..<repetitions).map { _ in try tcp() }
            let title = "rate \(rate)" + (delay > 0 ? ", delay \(plain(delay)) ms" : "")
            result.figures += [
                Figure("\(title): TCP payload", "Mbit/s", found.map { $0 / 1e6 }),
                Figure(
                    "\(title): off by", "%", found.map { abs($0 / expected - 1) * 100 }, aim: .median(atMost: 2)),
            ]
            progress(
                "\(title): \(grouped(found.median / 1e6, digits: 2)) Mbit/s of \(grouped(expected / 1e6, digits: 2))")
        }
    }

    func delays(_ result: inout BenchCase) throws {
        for delay in [0.5, 5, 30] {
            try set { $0.delay = delay }
            let idle = try echoes(200).map { $0 / 2 - delay }
            result.figures.append(
                Figure("delay \(plain(delay)) ms, idle: off by", "ms", idle, digits: 3, aim: .median(atMost: 0.3)))
            nonisolated(unsafe) var trouble: (any Error)?
            let stream = try OwnThread("load") { [self] in
                do { _ = try tcp(["--bitrate", "500M"]) } catch { trouble = error }
            }
            usleep(1_500_000)
            let loaded = try echoes(200).map { $0 / 2 - delay }
            stream.join()
            if let trouble { throw trouble }
            // 5 percent of half a millisecond is less than what the hosts' own stacks take.
            result.figures.append(
                Figure(
                    "delay \(plain(delay)) ms, 500 Mbit/s: off by", "ms", loaded, digits: 3,
                    aim: .median(atMost: max(0.3, delay * 0.05))))
            progress(
                "delay \(plain(delay)) ms: off by \(grouped(idle.median, digits: 3)) ms idle,"
                    + " \(grouped(loaded.median, digits: 3)) under load")
        }
    }

    func jitter(_ result: inout BenchCase) throws {
        try set(.forward) { ($0.delay, $0.jitter) = (5, 2) }
        let times = try echoes(500)
        let mean = times.reduce(0, +) / Double(times.count)
        let deviation = (times.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(times.count - 1)).squareRoot()
        let expected = 2 / 3.0.squareRoot()
        result.figures += [
            Figure("delay 5 ± 2 ms, one way: standard deviation", "ms", [deviation], digits: 3),
            Figure(
                "delay 5 ± 2 ms: off from a uniform distribution's by", "%", [abs(deviation / expected - 1) * 100],
                digits: 1, aim: .each(atMost: 10)),
        ]
        progress("jitter 2 ms: deviation \(grouped(deviation, digits: 3)) ms of \(grouped(expected, digits: 3))")
    }

    func losses(_ result: inout BenchCase) throws {
        for (loss, tolerance) in [(1.0, 0.3), (10, 1)] {
            try set(.forward) { $0.loss = loss }
            let found = try datagramLoss()
            result.figures += [
                Figure("loss \(plain(loss)) %: datagrams lost", "%", [found]),
                Figure("loss \(plain(loss)) %: off by", "%", [abs(found - loss)], aim: .each(atMost: tolerance)),
            ]
            progress("loss \(plain(loss)) %: \(grouped(found, digits: 2)) % of datagrams")
        }
        try set(.forward) { ($0.delay, $0.loss) = (1, 0.1) }
        let before = try service.status()[0].forward
        _ = try tcp()
        let after = try service.status()[0].forward
        let lost = Double(after.lost - before.lost)
        let share = lost / (lost + Double(after.frames - before.frames)) * 100
        result.figures += [
            Figure("loss 0.1 %: TCP segments lost", "%", [share], digits: 3),
            Figure("loss 0.1 %, TCP: off by", "%", [abs(share - 0.1)], digits: 3, aim: .each(atMost: 0.03)),
        ]
        progress("loss 0.1 %: \(grouped(share, digits: 3)) % of TCP segments")
    }

    func throughput(_ repetitions: Int, _ result: inout BenchCase) throws {
        for delay in [0.0, 5, 20] {
            try set { $0.delay = delay }
            let found = try (0..<repetitions).map { _ in try tcp() / 1e9 }
            result.figures.append(
                Figure(
                    "throughput, unlimited, delay \(plain(delay)) ms", "Gbit/s", found,
                    aim: delay == 5 ? .median(atLeast: 2) : nil))
            progress("delay \(plain(delay)) ms: \(grouped(found.median, digits: 2)) Gbit/s")
        }
    }

    /// Milliseconds of round trips, one each 5 ms, by a thread that does not wait for a processor.
    private func echoes(_ count: Int) throws -> [Double] {
        let times = try ends[0].run {
            let echo = try Echo(to: Self.addresses[1])
            // The first one may hold ARP's.
            _ = try echo.roundTrip(seconds: 2)
            ThreadPriority.realTime.apply()
            return (0..<count).compactMap { _ in
                usleep(5000)
                return echo.once(milliseconds: 500)
            }
        }
        guard times.count * 10 >= count * 9 else {
            throw TestbedError("only \(times.count) of \(count) echoes came back")
        }
        return times.map { Double($0) / 1e6 }
    }

    private func tcp(_ options: [String] = []) throws -> Double {
        try Iperf.run(from: ends[0], to: ends[1], Self.addresses[1], ["--omit", "1"] + options).bitsPerSecond
    }
    private func datagramLoss() throws -> Double {
        let options = ["--udp", "--bitrate", "50M", "--length", "1000"]
        return try Iperf.run(from: ends[0], to: ends[1], Self.addresses[1], options).lostPercent ?? 100
    }
}
