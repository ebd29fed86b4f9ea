// The link process: makes the links that its folder names, moves their frames, does what it is told.
import FoundationEssentials
import Glibc
import LinuxKernel
import Synchronization

/// What `apus link FOLDER` runs.
public final class LinkServer: @unchecked Sendable {
    private let service: LinkService
    // Everything below is touched under the lock only: by the control thread and by the traces' threads.
    private let lock = Mutex(())
    private var links: [String: StandingLink] = [:]
    private var order: [String] = []

    public init(folder: String) { service = LinkService(folder: folder) }

    /// Makes the links and serves until it is ended by a signal.
    ///
    /// - Throws: when a link cannot be made.
    public func run() throws -> Never {
        let plans = try JSONDecoder().decode([EmulatedLink].self, from: Data(try SmallFile.read(service.linksPath)))
        for plan in plans {
            try plan.check()
            links[plan.name] = try StandingLink(plan)
            order.append(plan.name)
        }
        // What has a name in the file system appears last: who can connect finds every link standing.
        let listener = try LocalSocket.listen(at: service.socketPath)
        while true {
            let number = accept(listener.number, nil, nil)
            if number < 0 { continue }
            let connection = FileDescriptor(owning: number)
            LocalSocket.limit(connection)
            do {
                let request = try JSONDecoder().decode(
                    LinkRequest.self, from: try LocalSocket.receive(from: connection))
                try LocalSocket.send(try JSONEncoder().encode(answer(request)), to: connection)
            } catch {
                // The other side went away, or is not one of ours; it finds out by itself.
                print("a request failed: \(error)")
            }
        }
    }

    private func answer(_ request: LinkRequest) -> LinkAnswer {
        do {
            switch request {
            case .status: return LinkAnswer(links: locked { order.map { links[$0]!.status } })
            case .change(let name, let direction, let change):
                var forward = LinkChange()
                var backward = LinkChange()
                if direction != .backward { forward = change }
                if direction != .forward { backward = change }
                try locked { try link(name).change(forward: forward, backward: backward) }
            case .play(let name, let trace, let repeated): try play(trace, on: name, repeated)
            case .stop(let name): try locked { _ = try link(name).play(nil) }
            }
            return LinkAnswer()
        } catch {
            return LinkAnswer(error: "\(error)")
        }
    }

    private func locked<T: Sendable>(_ body: () throws -> T) rethrows -> T { try lock.withLock { _ in try body() } }

    private func link(_ name: String) throws -> StandingLink {
        guard let link = links[name] else {
            throw TestbedError("there is no emulated link \(name): \(order.joined(separator: ", "))")
        }
        return link
    }

    /// Every step is tried on a copy first: a trace is played as a whole or not at all.
    private func play(_ trace: LinkTrace, on name: String, _ repeated: Bool) throws {
        if repeated && trace.length <= 0 { throw TestbedError("\(trace.file): one instant cannot be repeated") }
        let playing = try locked {
            let link = try link(name)
            var plan = link.plan
            for step in trace.steps {
                plan.forward = step.forward.applied(to: plan.forward)
                plan.backward = step.backward.applied(to: plan.backward)
                do { try plan.check() } catch {
                    throw TestbedError("\(trace.file), at \(plain(step.time)) s: \(error)")
                }
            }
            return link.play(trace.file)
        }
        try OwnThread.start("trace-\(name)") { [self] in
            var start = monotonicNow()
            repeat {
                for step in trace.steps {
                    Self.sleep(until: start + Int64(step.time * 1e9))
                    let goesOn = locked {
                        guard let link = links[name], link.playing == playing else { return false }
                        do { try link.change(forward: step.forward, backward: step.backward) } catch {
                            link.problem = "\(trace.file), at \(plain(step.time)) s: \(error)"
                            return false
                        }
                        return true
                    }
                    if !goesOn { return }
                }
                start += Int64(trace.length * 1e9)
            } while repeated
            locked { if let link = links[name], link.playing == playing { link.play(nil) } }
        }
    }

    private static func sleep(until instant: Int64) {
        var time = timespec(tv_sec: Int(instant / 1_000_000_000), tv_nsec: Int(instant % 1_000_000_000))
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
    }
}

/// A link that stands, whatever its means.
private final class StandingLink {
    private(set) var plan: EmulatedLink
    var problem: String?
    private var trace: String?
    /// Which of all the traces played so far.
    private(set) var playing = 0
    private let lanes: [LinkDirection: LinkLane]

    init(_ plan: EmulatedLink) throws {
        self.plan = plan
        switch plan.means {
        case .tap:
            let (a, b) = (try TAP(plan.a), try TAP(plan.b))
            lanes = [
                .forward: try LinkLane("\(plan.name) >", from: a, to: b, plan.forward),
                .backward: try LinkLane("\(plan.name) <", from: b, to: a, plan.backward),
            ]
        case .shaper:
            lanes = [:]
            try Shaper.apply(plan.forward, to: plan.a)
            try Shaper.apply(plan.backward, to: plan.b)
        }
    }

    /// Replaces what is being played; the number tells one from a later one.
    @discardableResult func play(_ file: String?) -> Int {
        trace = file
        playing += 1
        return playing
    }

    func change(forward: LinkChange, backward: LinkChange) throws {
        var new = plan
        new.forward = forward.applied(to: plan.forward)
        new.backward = backward.applied(to: plan.backward)
        try new.check()
        for direction in LinkDirection.allCases where new[direction] != plan[direction] {
            lanes[direction]?.set(new[direction])
            if plan.means == .shaper { try Shaper.apply(new[direction], to: plan.entry(direction)) }
            plan[direction] = new[direction]
        }
    }

    var status: LinkStatus {
        var status = LinkStatus(link: plan, trace: trace, problem: problem)
        if let forward = lanes[.forward], let backward = lanes[.backward] {
            (status.forward, status.backward) = (forward.counters, backward.counters)
            if let end = forward.end ?? backward.end { status.problem = end }
        } else {
            do {
                (status.forward, status.backward) = (try Shaper.counters(plan.a), try Shaper.counters(plan.b))
            } catch { status.problem = "\(error)" }
        }
        return status
    }
}
