// Programs that the testbed starts: agents, servers for tests, ip and tc.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// The thread that starts every child. PR_SET_PDEATHSIG counts for the *thread* that spawned, so a child that is to
/// die with this process must come from a thread that lives as long as it.
private final class Spawner: @unchecked Sendable {
    static let shared = Spawner()
    // `jobs` is only touched under `mutex`. Both are allocated once and never freed: they live as long as the process.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var jobs: [() -> Void] = []

    private init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(changed, nil)
        try? OwnThread.start("spawner") { [self] in
            while true {
                pthread_mutex_lock(mutex)
                while jobs.isEmpty { pthread_cond_wait(changed, mutex) }
                let job = jobs.removeFirst()
                pthread_mutex_unlock(mutex)
                job()
            }
        }
    }

    func run<T: Sendable>(_ job: @escaping @Sendable () -> T) -> T {
        nonisolated(unsafe) var result: T?
        pthread_mutex_lock(mutex)
        jobs.append { [self] in
            let value = job()
            pthread_mutex_lock(mutex)
            result = value
            pthread_cond_broadcast(changed)
            pthread_mutex_unlock(mutex)
        }
        pthread_cond_broadcast(changed)
        while result == nil { pthread_cond_wait(changed, mutex) }
        pthread_mutex_unlock(mutex)
        return result!
    }
}

/// A running program that this process started.
public final class ChildProcess: Sendable {
    public let name: String
    public let pid: Int32
    private let pidfd: FileDescriptor
    /// As waitpid(2) gives it; nil: not collected yet.
    private let status = Mutex<Int32?>(nil)

    /// Starts a program (see `clx_spawn`).
    ///
    /// - Parameters:
    ///   - path: the executable; without a slash it is looked for in PATH and the sbin folders.
    ///   - namespace: the network namespace it starts in; nil: this process's own.
    ///   - input, output: become 0, and 1 and 2; nil: /dev/null.
    ///   - diesWithParent: killed by the kernel when this process ends, however it ends.
    public init(
        _ path: String, _ arguments: [String], environment: [String: String]? = nil, folder: String? = nil,
        namespace: NamedNetwork? = nil, input: FileDescriptor? = nil, output: FileDescriptor? = nil,
        diesWithParent: Bool = false
    ) throws {
        let program = try Self.locate(path)
        let network = try namespace?.open()
        let variables: [String]
        if let environment {
            variables = environment.map { "\($0.key)=\($0.value)" }
        } else {
            variables = Self.ownEnvironment()
        }
        var plan = SpawnPlan(path: program, arguments: [program] + arguments, environment: variables)
        plan.workingDirectory = folder
        plan.descriptors = (input?.number ?? -1, output?.number ?? -1, output?.number ?? -1)
        plan.networkNamespace = network?.number ?? -1
        (plan.hasNewSession, plan.diesWithParent) = (true, diesWithParent)
        let (pid, descriptor) = withExtendedLifetime((network, input, output)) {
            Spawner.shared.run { [plan] in plan.spawn() }
        }
        try check(pid, "starting \(program)")
        self.name = program
        self.pid = pid
        self.pidfd = FileDescriptor(owning: descriptor)
    }

    /// Sends a signal; a process that has ended is no error.
    public func signal(_ number: Int32) { _ = clx_pidfd_send_signal(pidfd.number, number) }

    /// Waits for the end; the status as waitpid(2) gives it, nil when the time is up.
    public func wait(seconds: Double) -> Int32? {
        status.withLock { status in
            if let status { return status }
            var entry = pollfd(fd: pidfd.number, events: Int16(POLLIN), revents: 0)
            while poll(&entry, 1, Int32(seconds * 1000)) < 0 && errno == EINTR {}
            var value: Int32 = 0
            guard clx_waitpid(pid, &value, WNOHANG) == pid else { return nil }
            status = value
            return value
        }
    }

    public var isRunning: Bool { wait(seconds: 0) == nil }

    /// SIGTERM, then SIGKILL after `grace` seconds; returns when the process is gone.
    public func stop(grace: Double = 3) {
        signal(SIGTERM)
        if wait(seconds: grace) != nil { return }
        signal(SIGKILL)
        _ = wait(seconds: 10)
    }

    /// The full path of a program.
    static func locate(_ program: String) throws -> String {
        if program.contains("/") { return program }
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        for folder in path.split(separator: ":").map(String.init) + ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            if access("\(folder)/\(program)", X_OK) == 0 { return "\(folder)/\(program)" }
        }
        throw TestbedError("\(program) not found: scripts/setup installs what the testbed needs")
    }

    private static func ownEnvironment() -> [String] {
        var result: [String] = []
        var entry = environ
        while let text = entry.pointee {
            result.append(String(cString: text))
            entry += 1
        }
        return result
    }
}

/// Runs a program to its end with text as its input and returns what it printed.
///
/// - Throws: the program's own words when it fails or outlives `seconds`.
@discardableResult
func runProgram(
    _ program: String, _ arguments: [String], input: String? = nil, namespace: NamedNetwork? = nil,
    seconds: Double = 30
) throws -> String {
    var source: FileDescriptor?
    if let input {
        let file = FileDescriptor(owning: try check(clx_memfd_create("input", UInt32(MFD_CLOEXEC)), "memfd_create"))
        try Array(input.utf8).withUnsafeBytes { try file.write($0) }
        try checkC(lseek(file.number, 0, SEEK_SET), "rewinding the input of \(program)")
        source = file
    }
    let network = try namespace?.open()
    return try Subprocess.run(
        [try ChildProcess.locate(program)] + arguments, input: source?.number, networkNamespace: network?.number,
        timeLimit: .seconds(seconds)
    ).text
}

private let MFD_CLOEXEC = 1
