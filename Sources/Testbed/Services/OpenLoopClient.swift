// The thread of a client: sends at a steady rate whether answers come or not, and takes what comes.
import CLinux
import Glibc
import LinuxKernel

/// What a client sends, and what it makes of the answers. All of it happens on the client's thread.
protocol OpenLoopTraffic: AnyObject {
    /// How many links it has; each has a transport.
    var transports: [Transport] { get }
    /// Nanoseconds between two requests.
    var period: Int64 { get }
    /// Sends the next request, which was due at an instant.
    func send(due: Int64, over links: [ServiceLink])
    func take(_ message: UnsafeRawBufferPointer, at now: Int64)
    /// Requests without an answer, of them all and of those sent over TCP.
    var outstanding: (all: Int, overTCP: Int) { get }
}

/// Runs a traffic against a service.
final class OpenLoopClient: @unchecked Sendable {
    /// How long `stop` waits for answers over TCP, and for datagrams, nanoseconds.
    private static let (patience, datagramPatience) = (Int64(10_000_000_000), Int64(500_000_000))

    private let traffic: any OpenLoopTraffic
    // Only the thread touches these while it runs; `stop` reads them after joining it.
    private var links: [ServiceLink] = []
    private var thread: ClientThread?

    /// Opens the links and begins to send.
    init(_ traffic: any OpenLoopTraffic, to endpoint: ServiceEndpoint, name: String) throws {
        self.traffic = traffic
        thread = try ClientThread(
            name, in: endpoint.namespace, to: "\(endpoint.address):\(endpoint.port)", patience: 60,
            connect: { [self] in links = try self.traffic.transports.map { try ServiceLink(endpoint, $0) } },
            run: { [self] thread, _ in run(thread) })
    }

    /// Ends the client after what is outstanding has come, or will not. To be called once; the traffic is complete
    /// then.
    ///
    /// - Returns: why connections ended before.
    func stop() -> [String] {
        thread?.stop()
        return links.compactMap(\.closed)
    }

    private func run(_ thread: ClientThread) {
        var entries = links.map { pollfd(fd: $0.descriptor.number, events: Int16(POLLIN), revents: 0) }
        var next = monotonicNow() + traffic.period
        var ended: Int64?
        while true {
            var now = monotonicNow()
            if ended == nil && thread.isStopping { ended = now }
            if let ended, isOver(after: now - ended) { return }
            while ended == nil && next <= now {
                traffic.send(due: next, over: links)
                next += traffic.period
                now = monotonicNow()
            }
            for (index, link) in links.enumerated() {
                link.flush()
                // poll passes over negative descriptors.
                entries[index].fd = link.closed == nil ? link.descriptor.number : -1
                entries[index].events = Int16(POLLIN | (link.wantsToSend ? POLLOUT : 0))
            }
            let pause = ended == nil ? max(0, next - monotonicNow()) : 1_000_000
            guard clx_poll(&entries, UInt32(entries.count), pause) > 0 else { continue }
            for (index, link) in links.enumerated() where entries[index].revents & ~Int16(POLLOUT) != 0 {
                link.receive { traffic.take($0, at: monotonicNow()) }
            }
        }
    }

    private func isOver(after waited: Int64) -> Bool {
        let (all, overTCP) = traffic.outstanding
        if all == 0 || waited > Self.patience { return true }
        return waited > Self.datagramPatience && (overTCP == 0 || links.contains { $0.closed != nil })
    }
}
