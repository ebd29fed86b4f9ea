// A program to be started, as C wants it told.
import CLinux
import Glibc

/// What a child process gets.
public struct SpawnPlan: Sendable {
    public var path: String
    /// The program's name first.
    public var arguments: [String]
    /// "NAME=value"; nothing is inherited.
    public var environment: [String]
    /// nil: this process's own.
    public var workingDirectory: String?
    /// Become 0, 1 and 2; -1: /dev/null.
    public var descriptors: (Int32, Int32, Int32) = (-1, -1, -1)
    /// The network namespace to enter; -1: this process's own.
    public var networkNamespace: Int32 = -1
    /// setsid(2).
    public var hasNewSession = false
    /// It is killed when the *thread* that spawned it ends (PR_SET_PDEATHSIG).
    public var diesWithParent = false

    public init(path: String, arguments: [String], environment: [String] = []) {
        (self.path, self.arguments, self.environment) = (path, arguments, environment)
    }

    /// Starts the program.
    ///
    /// - Returns: its PID and a pidfd, which is the caller's to close. -errno in place of the PID if it could not be
    ///   started.
    public func spawn() -> (pid: Int32, pidfd: Int32) {
        // SAFETY: the strings live until they are freed below, after clx_spawn has returned: by then the child has
        // either exec'd or ended, and it never shared this memory (no CLONE_VM).
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
        let folder = workingDirectory.flatMap { strdup($0) }
        defer {
            for string in argv + envp { free(string) }
            free(folder)
        }
        var pidfd: Int32 = -1
        let pid = path.withCString { path in
            argv.withUnsafeMutableBufferPointer { argv in
                envp.withUnsafeMutableBufferPointer { envp in
                    var plan = clx_spawn_plan()
                    plan.path = path
                    plan.argv = UnsafePointer(argv.baseAddress!)
                    plan.envp = UnsafePointer(envp.baseAddress!)
                    plan.cwd = UnsafePointer(folder)
                    plan.fds = descriptors
                    plan.netns = networkNamespace
                    plan.new_session = hasNewSession ? 1 : 0
                    plan.die_with_parent = diesWithParent ? 1 : 0
                    return clx_spawn(&plan, &pidfd)
                }
            }
        }
        return (pid, pidfd)
    }
}
