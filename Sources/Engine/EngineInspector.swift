// `apus inspect`: what a running tree holds, and what of it could not be carried.
import Glibc
import LinuxKernel
import Memory

/// Looks into processes with the engine's own capture code, without stopping anything.
public struct EngineInspector: ProcessInspector {
    /// Files of the host that the runtime gave as standard streams.
    private let streams: [String]
    public init(streams: [String] = []) { self.streams = streams }

    public func inspect(pid: Int32) throws -> InspectReport {
        let reader = try AddressSpaceReader(pid: pid)
        try reader.refresh()
        var context = DescriptorContext()
        for path in streams { try context.addStream(1, path: path) }
        // Standard output and error are the runtime's as long as nobody says otherwise.
        for number in [1, 2] as [Int32] {
            if let path = try? ProcessFiles.link("/proc/\(pid)/fd/\(number)"), access(path, F_OK) == 0 {
                try? context.addStream(1, path: path)
            }
        }
        let obstacles = try findObstacles(pid: pid, reader, context)
        return try report([pid] + ProcessFiles.children(of: pid), obstacles)
    }

    /// What processes hold, beside what was found to be in the way of moving them. One that ends meanwhile is left out.
    public func report(_ pids: [Int32], _ obstacles: [Obstacle]) throws -> InspectReport {
        InspectReport(
            processes: pids.compactMap { pid in
                guard let reader = try? AddressSpaceReader(pid: pid), (try? reader.refresh()) != nil else { return nil }
                return try? process(pid, reader)
            },
            obstacles: obstacles.map {
                InspectReport.Obstacle(pid: $0.pid, process: $0.process, what: $0.subject, why: $0.reason)
            })
    }

    private func process(_ pid: Int32, _ reader: AddressSpaceReader) throws -> InspectReport.Process {
        let status = try ProcessStatus(pid: pid)
        var process = InspectReport.Process(
            pid: pid, innerPid: Int32(status.numbers("NStgid").last ?? 0),
            parent: Int32(status.numbers("PPid").first ?? 0),
            name: processName(pid))
        for tid in try ProcessFiles.tasks(of: pid) {
            guard let thread = try? ProcessStatus(pid: pid, task: tid) else { continue }
            process.threads.append(
                .init(tid: tid, name: thread["Name"] ?? "?", state: String((thread["State"] ?? "?").prefix(1))))
        }
        process.memory = try memory(pid, reader)
        let pidfd = try SourceProcess(pid: pid, undo: NoUndoLog()).pidfd
        for number in try ProcessFiles.descriptors(of: pid) {
            guard let probe = try? DescriptorProbe(number, of: pid, pidfd) else { continue }
            process.descriptors.append(.init(number: number, kind: kind(probe), detail: probe.link))
        }
        return process
    }

    private func memory(_ pid: Int32, _ reader: AddressSpaceReader) throws -> [InspectReport.Memory] {
        let pagemap = try Pagemap(pid: pid)
        let resident = try pagemap.contents(of: reader.tracked)
        var kinds: [String: InspectReport.Memory] = [:]
        for area in reader.areas {
            let name = name(of: area.kind)
            var entry = kinds[name] ?? .init(kind: name, areas: 0, size: 0, resident: 0)
            entry.areas += 1
            entry.size += area.end - area.start
            entry.resident += resident.parts(in: area.range).reduce(0) { $0 + UInt64($1.count) }
            kinds[name] = entry
        }
        return kinds.values.sorted { $0.kind < $1.kind }
    }

    private func name(of kind: MemoryArea.Kind) -> String {
        switch kind {
        case .anonymous: "anonymous"
        case .stack: "stack"
        case .privateFile: "private file"
        case .sharedAnonymous: "shared anonymous"
        case .sharedFile: "shared file"
        case .vdso, .vvar, .vsyscall: "kernel"
        case .UNRECOGNIZED: "unknown"
        }
    }

    private func kind(_ probe: DescriptorProbe) -> String {
        switch probe.type {
        case S_IFREG: "file"
        case S_IFDIR: "directory"
        case S_IFCHR: "device"
        case S_IFIFO: "pipe"
        case S_IFSOCK: "socket"
        default: String(probe.link.split(separator: ":").last ?? "other").filter { $0 != "[" && $0 != "]" }
        }
    }
}
