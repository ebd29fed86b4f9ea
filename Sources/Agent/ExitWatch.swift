// Notices how the first processes of containers end. They are nobody's children: an agent may have started after them.
import CLinux
import Glibc
import LinuxKernel
import Migration
import Synchronization

/// Watches the containers of one host, on one thread.
final class ExitWatch: Sendable {
    private struct State {
        var processes: [String: ProcessEnd] = [:]
        var isStopped = false
    }
    private let state = Mutex(State())
    /// Readable when there is something else to watch.
    private let changed = FileDescriptor(owning: clx_eventfd())

    /// Begins to watch.
    ///
    /// - Parameter noticed: called with a container and how it ended, while nobody can `forget` it.
    func start(_ noticed: @escaping @Sendable (String, ContainerExit) -> Void) throws(KernelError) {
        try OwnThread.start("apus-exits") { [self] in while waitForEnds(noticed) {} }
    }

    func stop() { change { $0.isStopped = true } }

    /// Watches a container's first process, instead of the one of this name that was watched before.
    func watch(_ name: String, pid: Int32) throws(KernelError) {
        let process = try ProcessEnd(of: pid)
        change { $0.processes[name] = process }
    }

    /// Nothing will be noticed of this container any more.
    func forget(_ name: String) { change { $0.processes[name] = nil } }

    /// Gives a container that has just been started the time to end at once, until that has been noticed.
    func wait(for name: String, milliseconds: Int32) {
        guard let process = state.withLock({ $0.processes[name] }) else { return }
        var request = pollfd(fd: process.pidfd.number, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, milliseconds) > 0 else { return }
        for _ in 0..<2000 where state.withLock({ $0.processes[name] === process }) { usleep(1000) }
    }

    private func change(_ body: (inout sending State) -> Void) {
        state.withLock { body(&$0) }
        var one: UInt64 = 1
        _ = write(changed.number, &one, 8)
    }

    /// False when it has been stopped.
    private func waitForEnds(_ noticed: (String, ContainerExit) -> Void) -> Bool {
        let (watched, isStopped) = state.withLock { (Array($0.processes), $0.isStopped) }
        if isStopped { return false }
        var requests = ([changed] + watched.map(\.value.pidfd)).map {
            pollfd(fd: $0.number, events: Int16(POLLIN), revents: 0)
        }
        guard poll(&requests, nfds_t(requests.count), -1) > 0 else { return true }
        if requests[0].revents != 0 {
            var count: UInt64 = 0
            _ = read(changed.number, &count, 8)
        }
        for ((name, process), request) in zip(watched, requests.dropFirst()) where request.revents != 0 {
            let exit = ContainerExit(waitStatus: process.waitStatus(), at: timestamp())
            state.withLock { state in
                // Moved away meanwhile, or another of the name came?
                guard state.processes[name] === process else { return }
                noticed(name, exit)
                state.processes[name] = nil
            }
        }
        return true
    }
}
