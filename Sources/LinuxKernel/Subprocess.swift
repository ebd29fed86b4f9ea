// Runs a program and waits for it: what it wrote, how it ended.
import CLinux
import Glibc

/// A program that could not be started, failed or took too long.
public struct SubprocessError: Error, Sendable, CustomStringConvertible {
    public enum Reason: Sendable, Equatable {
        /// It could not be started.
        case notStarted(Errno)
        /// It exited with this status.
        case exited(Int32)
        /// A signal ended it.
        case signaled(Int32)
        /// It was killed because its time was up.
        case timedOut(Duration)
        /// Preparing its descriptors or waiting for it failed.
        case kernel(KernelError)
    }
    /// The program and its arguments.
    public let command: [String]
    public let reason: Reason
    /// What it wrote to standard error, if that was captured, without spaces at its ends.
    public let words: String

    public var description: String {
        let end = words.isEmpty ? "" : ": \(words)"
        let line = command.joined(separator: " ")
        return switch reason {
        case .notStarted(let errno): "starting `\(line)`: \(errno)"
        case .exited(let status): "`\(line)` exited with status \(status)\(end)"
        case .signaled(let signal): "`\(line)` was ended by signal \(signal)\(end)"
        case .timedOut(let limit): "`\(line)` took longer than \(limit) and was killed\(end)"
        case .kernel(let error): "`\(line)`: \(error)"
        }
    }
}

extension KernelError: Equatable {
    public static func == (a: KernelError, b: KernelError) -> Bool { a.operation == b.operation && a.errno == b.errno }
}

/// Runs programs. Captured output goes to a memfd, never a pipe: a daemon that inherits it (a container does)
/// would keep a pipe's reader waiting for ever.
public enum Subprocess {
    /// Where an output stream goes.
    public enum Output: Sendable {
        case capture
        /// To this descriptor, which stays the caller's.
        case descriptor(Int32)
        case discard
    }

    /// What a program that ended with status 0 wrote.
    public struct Result: Sendable {
        /// Captured standard output.
        public let output: [UInt8]
        /// Captured standard error.
        public let errors: [UInt8]
        /// Captured standard output as text.
        public var text: String { String(decoding: output, as: UTF8.self) }
    }

    /// Runs `command` (its first element is a path or a name looked up in `PATH`) and waits for its end.
    ///
    /// - Parameters:
    ///   - environment: the program's whole environment; nil: ours.
    ///   - input: a descriptor for standard input; nil: /dev/null.
    ///   - networkNamespace: a network namespace's descriptor to enter first.
    ///   - timeLimit: after it the program is killed and `timedOut` is thrown.
    ///   - killsChildren: what it has started is killed then, too, unless that began a session of its own.
    /// - Throws: also when the program ends with another status than 0.
    @discardableResult
    public static func run(
        _ command: [String], environment: [String: String]? = nil, workingDirectory: String? = nil,
        input: Int32? = nil, output: Output = .capture, errors: Output = .capture, networkNamespace: Int32? = nil,
        timeLimit: Duration = .seconds(60), killsChildren: Bool = false
    ) throws(SubprocessError) -> Result {
        func fail(_ reason: SubprocessError.Reason, _ words: [UInt8] = []) -> SubprocessError {
            SubprocessError(command: command, reason: reason, words: trimmed(words))
        }
        let variables = environment ?? ownEnvironment()
        guard let name = command.first, let path = find(name, in: variables["PATH"]) else {
            throw fail(.notStarted(.noEntry))
        }
        do {
            let outputFile = try Sink(output)
            let errorFile = try Sink(errors)
            var plan = SpawnPlan(
                path: path, arguments: command, environment: variables.map { "\($0.key)=\($0.value)" })
            (plan.workingDirectory, plan.networkNamespace) = (workingDirectory, networkNamespace ?? -1)
            plan.descriptors = (input ?? -1, outputFile.descriptor, errorFile.descriptor)
            plan.hasNewSession = killsChildren
            let (pid, pidfd) = plan.spawn()
            if pid < 0 { throw fail(.notStarted(Errno(-pid))) }
            let handle = FileDescriptor(owning: pidfd)
            let inTime = try waitUntilReadable(handle, timeLimit)
            if !inTime {
                // Not collected yet, so the number of its group is still its own.
                if killsChildren { kill(-pid, SIGKILL) }
                _ = clx_pidfd_send_signal(handle.number, SIGKILL)
            }
            var status: Int32 = 0
            while true {
                let result = clx_waitpid(pid, &status, 0)
                if result == -EINTR { continue }
                try check(result, "waiting for pid \(pid)")
                break
            }
            let words = try errorFile.content()
            if !inTime { throw fail(.timedOut(timeLimit), words) }
            if status & 0x7f != 0 { throw fail(.signaled(status & 0x7f), words) }
            if status >> 8 & 0xff != 0 { throw fail(.exited(status >> 8 & 0xff), words) }
            return Result(output: try outputFile.content(), errors: words)
        } catch let error as SubprocessError {
            throw error
        } catch let error as KernelError {
            throw fail(.kernel(error))
        } catch {
            fatalError("no other error is thrown here: \(error)")
        }
    }

    /// Where `name` is: itself if it holds a slash, else the first executable of that name in `path` (a PATH).
    public static func find(_ name: String, in path: String? = nil) -> String? {
        if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
        let folders = path ?? getenv("PATH").map { String(cString: $0) } ?? "/usr/sbin:/usr/bin:/sbin:/bin"
        for folder in folders.split(separator: ":") where access("\(folder)/\(name)", X_OK) == 0 {
            return "\(folder)/\(name)"
        }
        return nil
    }

    /// This process's environment.
    public static func ownEnvironment() -> [String: String] {
        var variables: [String: String] = [:]
        // Read through /proc: `environ` is a mutable global that Swift 6 does not let us touch.
        for line in ((try? SmallFile.read("/proc/self/environ")) ?? []).split(separator: 0) {
            guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else { continue }
            let key = String(decoding: line[..<equals], as: UTF8.self)
            variables[key] = String(decoding: line[(equals + 1)...], as: UTF8.self)
        }
        return variables
    }

    /// An output's descriptor and, when captured, its content afterwards.
    private struct Sink {
        let descriptor: Int32
        let memory: FileDescriptor?

        init(_ output: Output) throws(KernelError) {
            switch output {
            case .capture:
                memory = FileDescriptor(
                    owning: try check(clx_memfd_create("apus-output", 1 /* MFD_CLOEXEC */), "creating a memfd"))
                descriptor = memory!.number
            case .descriptor(let number): (descriptor, memory) = (number, nil)
            case .discard: (descriptor, memory) = (-1, nil)
            }
        }

        /// At most 16 MiB are kept: nothing that we run has more to say.
        func content() throws(KernelError) -> [UInt8] {
            guard let memory else { return [] }
            let size = min(try checkC(lseek(memory.number, 0, SEEK_END), "asking for a memfd's size"), 16 << 20)
            var bytes = [UInt8](repeating: 0, count: size)
            let count = try check(clx_pread(memory.number, &bytes, size, 0), "reading a memfd")
            bytes.removeSubrange(count...)
            return bytes
        }
    }

    /// False if the time was up first. A pidfd becomes readable when its process ends.
    private static func waitUntilReadable(_ descriptor: FileDescriptor, _ limit: Duration) throws(KernelError) -> Bool {
        let end = ContinuousClock.now + limit
        while true {
            let left = max(.zero, end - .now)
            let milliseconds = left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000
            var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
            let result = poll(&request, 1, Int32(clamping: milliseconds + 1))
            if result > 0 { return true }
            if result < 0 && Glibc.errno != EINTR { try checkC(result, "waiting for a process") }
            if result == 0 && ContinuousClock.now >= end { return false }
        }
    }

    private static func trimmed(_ bytes: [UInt8]) -> String {
        let isSpace: (UInt8) -> Bool = { $0 <= 32 }
        guard let first = bytes.firstIndex(where: { !isSpace($0) }),
            let last = bytes.lastIndex(where: { !isSpace($0) })
        else { return "" }
        return String(decoding: bytes[first...last], as: UTF8.self)
    }
}
