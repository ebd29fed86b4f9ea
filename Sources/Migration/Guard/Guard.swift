// The guard: a process beside each migration that puts right what its agent leaves behind if it dies.
//
// It only waits, on the agent's pidfd and on a socket that the session shares with it. What there is to do it learns
// from the journal. It runs in a session of its own, so that no terminal's signal takes both, and in the agent's
// network namespace, where the ports are.
import CLinux
import Containers
import Engine
import Glibc
import LinuxKernel

public enum Guard {
    /// What `apus guard --journal PATH --agent PID` does; returns the exit status.
    public static func main(_ arguments: [String]) throws -> Int32 {
        var journal: String?, agent: Int32?
        var rest = arguments[...]
        while let option = rest.popFirst(), let value = rest.popFirst() {
            switch option {
            case "--journal": journal = value
            case "--agent": agent = Int32(value)
            default: break
            }
        }
        guard let journal, let agent else { return 2 }
        signal(SIGPIPE, SIG_IGN)
        return try watch(agent, journal)
    }

    private static func watch(_ agent: Int32, _ path: String) throws -> Int32 {
        // An agent that died before this line has no process here any more, or another one's: then it is not our
        // parent.
        let number = clx_pidfd_open(agent, 0)
        let pidfd = number >= 0 && getppid() == agent ? FileDescriptor(owning: number) : nil
        if let file = getenv("APUS_GUARD_PIDFILE") { try writePID(String(cString: file)) }
        FaultPoint.reach(.guardStarted)
        var ready: UInt8 = 1
        _ = send(0, &ready, 1, Int32(MSG_NOSIGNAL))
        if let pidfd {
            var watched = [
                pollfd(fd: pidfd.number, events: Int16(POLLIN), revents: 0),
                pollfd(fd: 0, events: Int16(POLLIN), revents: 0),
            ]
            // A pidfd is readable when all threads are gone: by then the kernel has let go, or killed, what they
            // traced.
            while watched[0].revents == 0 {
                if poll(&watched, nfds_t(watched.count), -1) < 0 { continue }
                if watched[1].revents != 0 {
                    var byte: UInt8 = 0
                    if recv(0, &byte, 1, 0) == 1 { break }
                    // The socket closes a moment before the process is gone.
                    watched[1].fd = -1
                    watched[1].revents = 0
                }
            }
        }
        guard let journal = OpenJournal(path: path), !journal.content.settled else { return 0 }
        FaultPoint.reach(.guardFoundDeath)
        guard let host = journal.host else { return 1 }
        // A process that is held, by a pause of its container above all, can be put right when it goes on. Nobody else
        // does that as long as the agent lives, which is this guard's parent.
        var attempt: UInt32 = 0
        while attempt < 5 || journal.content.header.role == .source && getppid() == agent {
            do {
                try settle(journal, host)
                return 0
            } catch {
                let words = "apus guard: migration \(journal.content.header.migration): \(error)\n"
                if attempt < 5 { _ = write(2, words, words.utf8.count) }
                usleep(100_000 << min(attempt, 3))
                attempt += 1
                journal.reread()
            }
        }
        // What cannot be put right here is left, with its journal, to the agent's next start.
        return 1
    }

    /// For tests that kill guards.
    private static func writePID(_ path: String) throws {
        let fresh = "\(path).new", text = String(getpid())
        let file = try FileDescriptor(opening: fresh, O_WRONLY | O_CREAT | O_TRUNC)
        try Array(text.utf8).withUnsafeBytes { try file.write($0) }
        rename(fresh, path)
    }

    private static func settle(_ journal: OpenJournal, _ host: SessionHost) throws {
        let header = journal.content.header
        switch header.role {
        case .source:
            switch try Repair.source(journal, host) {
            case .done: break
            case .mustAsk:
                // Nobody decides by a timeout: asked until there is an answer, or an agent of this host takes over.
                try Repair.ask(journal, host, until: { isServed(host) })
            }
        case .destination:
            let inquiries = InquiryService(host)
            defer { inquiries.stop() }
            let verdict = try Repair.destination(journal, host, prompt: true, decided: { inquiries.start() })
            guard verdict != nil else { return }
            FaultPoint.reach(.guardAnswering)
            // Until the source knows: its journal is gone, or it said so. An agent that comes back answers from the
            // marker.
            while !isServed(host) {
                if !Recovery.remembers(header.migration, in: host.journals) { return journal.settle() }
                if Inquiry.ask(header).isUnknown {
                    Recovery.forget(header.migration, in: host.journals)
                    return journal.settle()
                }
                usleep(200_000)
            }
            journal.settle()
        }
    }

    /// Has an agent of this host taken over?
    static func isServed(_ host: SessionHost) -> Bool {
        guard let lock = try? FileDescriptor(opening: "\(host.layout.runFolder)/agent.lock", O_RDONLY) else {
            return false
        }
        return flock(lock.number, LOCK_SH | LOCK_NB) != 0
    }
}
