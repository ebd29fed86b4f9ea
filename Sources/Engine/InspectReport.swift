// What a process tree holds, for a person to read: `apus inspect`.

/// A process tree's threads, memory and descriptors, and what of it could not be carried.
public struct InspectReport: Codable, Sendable {
    public struct Process: Codable, Sendable {
        /// In the PID namespace of the caller.
        public var pid: Int32
        /// In the container's own PID namespace.
        public var innerPid: Int32
        public var parent: Int32
        public var name: String
        public var threads: [Thread]
        public var memory: [Memory]
        public var descriptors: [Descriptor]
        public init(
            pid: Int32, innerPid: Int32, parent: Int32, name: String, threads: [Thread] = [], memory: [Memory] = [],
            descriptors: [Descriptor] = []
        ) {
            self.pid = pid
            self.innerPid = innerPid
            self.parent = parent
            self.name = name
            self.threads = threads
            self.memory = memory
            self.descriptors = descriptors
        }
    }

    public struct Thread: Codable, Sendable {
        public var tid: Int32
        public var name: String
        /// As in /proc/PID/status: "S".
        public var state: String
        public init(tid: Int32, name: String, state: String) {
            self.tid = tid
            self.name = name
            self.state = state
        }
    }

    /// All areas of one kind together.
    public struct Memory: Codable, Sendable {
        /// "anonymous", "heap", "stack", "private file", "shared anonymous", "vDSO" ...
        public var kind: String
        public var areas: Int
        /// Bytes of address space.
        public var size: UInt64
        /// Bytes that would be sent.
        public var resident: UInt64
        public init(kind: String, areas: Int, size: UInt64, resident: UInt64) {
            self.kind = kind
            self.areas = areas
            self.size = size
            self.resident = resident
        }
    }

    public struct Descriptor: Codable, Sendable {
        public var number: Int32
        /// "file", "pipe", "eventfd", "epoll", "TCP" ...
        public var kind: String
        /// Path, addresses, offset: whatever tells it from others of its kind.
        public var detail: String
        public init(number: Int32, kind: String, detail: String) {
            self.number = number
            self.kind = kind
            self.detail = detail
        }
    }

    /// Something that a migration would refuse.
    public struct Obstacle: Codable, Sendable {
        public var pid: Int32
        public var process: String
        /// "fd 9 (io_uring)".
        public var what: String
        /// "not carried yet".
        public var why: String
        public init(pid: Int32, process: String, what: String, why: String) {
            self.pid = pid
            self.process = process
            self.what = what
            self.why = why
        }
        /// "fd 9 (io_uring) of pid 12 (redis-server): not carried yet".
        public var sentence: String { "\(what) of pid \(pid) (\(process)): \(why)" }
    }

    public var processes: [Process]
    public var obstacles: [Obstacle]

    public init(processes: [Process] = [], obstacles: [Obstacle] = []) {
        self.processes = processes
        self.obstacles = obstacles
    }
}

/// Looks into a running process tree without stopping it.
public protocol ProcessInspector: Sendable {
    /// - Parameter pid: the tree's first process, in the caller's PID namespace.
    func inspect(pid: Int32) throws -> InspectReport
}
