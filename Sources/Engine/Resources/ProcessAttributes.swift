// Small attributes that all threads of a process share: working directory, umask, limits, personality and the like.
import CLinux
import Glibc
import LinuxKernel

struct ProcessAttributes: ProcessResource {
    private var limits: [CallBatch.DataReference] = []
    private var dumpable = 0, personality = 0
    private var subreaper = CallBatch.DataReference.none
    private static let limitCount = 16

    mutating func ask(_ context: CaptureContext, _ batch: inout CallBatch) {
        for resource in 0..<Self.limitCount {
            limits.append(batch.space(16))
            batch.call(
                .prlimit64, .value(0), .int(resource), .value(0), .address(limits[resource]),
                doing: "reading limit \(resource)")
        }
        dumpable = batch.call(.prctl, .value(3), doing: "reading PR_GET_DUMPABLE")
        subreaper = batch.space(8)
        batch.call(.prctl, .value(37), .address(subreaper), doing: "reading PR_GET_CHILD_SUBREAPER")
        personality = batch.call(.personality, .value(0xffff_ffff), doing: "reading the personality")
    }

    func collect(_ context: CaptureContext, _ answers: CallResults, into parts: inout ProcessParts) throws {
        var settings = ProcessSettings()
        let directory = try Self.workingDirectory(of: context.pid)
        if let reason = directory.reason {
            throw EngineError.obstacles([context.obstacle("working directory", reason)])
        }
        settings.workingDirectory = Bytes(directory.path)
        settings.umask = UInt32(context.status["Umask"] ?? "", radix: 8) ?? 0o22
        settings.limits = limits.flatMap { [answers.word($0), answers.word($0, at: 1)] }
        settings.dumpable = UInt32(truncatingIfNeeded: answers[dumpable])
        settings.childSubreaper = answers.int32(subreaper) != 0
        settings.personality = UInt32(truncatingIfNeeded: answers[personality])
        settings.oomScoreAdj = Int32((try? SmallFile.text("/proc/\(context.pid)/oom_score_adj")) ?? "") ?? 0
        settings.coredumpFilter =
            UInt32((try? SmallFile.text("/proc/\(context.pid)/coredump_filter")) ?? "", radix: 16) ?? 0x33
        parts.process.settings = settings
    }

    /// The working directory's path, and why that path does not lead to it.
    private static func workingDirectory(of pid: Int32) throws -> (path: [UInt8], reason: String?) {
        let path = try ProcessFiles.linkBytes("/proc/\(pid)/cwd")
        var status = stat()
        try checkC(stat("/proc/\(pid)/cwd", &status), "looking at the working directory of pid \(pid)")
        if FileIdentity.status(of: path, inRootOf: pid).map({ FileIdentity($0) }) == FileIdentity(status) {
            return (path, nil)
        }
        let name = String(decoding: path, as: UTF8.self)
        return (
            path,
            name.hasSuffix(" (deleted)") ? "deleted: \(name)" : "\(name) is not that folder in the container's root"
        )
    }

    static func restore(_ parts: ProcessParts, _ context: RestoreContext, _ batch: inout CallBatch) throws {
        let settings = parts.process.settings
        let directory = batch.bytes([UInt8](settings.workingDirectory) + [0])
        batch.call(
            .chdir, .address(directory),
            doing: "changing to \(String(decoding: settings.workingDirectory, as: UTF8.self))")
        batch.call(.umask, .int(settings.umask), doing: "setting the umask")
        if settings.childSubreaper {
            batch.call(.prctl, .value(36), .value(1), doing: "setting PR_SET_CHILD_SUBREAPER")
        }
        batch.call(.personality, .int(settings.personality), doing: "setting the personality")
        let own = "/proc/\(context.stub.pid)/"
        if try SmallFile.text(own + "oom_score_adj") != "\(settings.oomScoreAdj)" {
            try SmallFile.write("\(settings.oomScoreAdj)", to: own + "oom_score_adj")
        }
        if UInt32(try SmallFile.text(own + "coredump_filter"), radix: 16) != settings.coredumpFilter {
            try SmallFile.write("0x\(String(settings.coredumpFilter, radix: 16))", to: own + "coredump_filter")
        }
    }

    /// Adds the calls that set what other calls would meet or undo, when nothing is left to be made.
    static func finish(_ process: ProcessImage, _ batch: inout CallBatch) {
        // 2 (only root may dump) is the kernel's to set, by giving up privileges as the threads have done.
        if process.settings.dumpable != 2 {
            batch.call(.prctl, .value(4), .int(process.settings.dumpable), doing: "setting PR_SET_DUMPABLE")
        }
        let limits = process.settings.limits
        for resource in 0..<limitCount where limits.count == 2 * limitCount {
            let limit = batch.words([limits[2 * resource], limits[2 * resource + 1]])
            batch.call(
                .prlimit64, .value(0), .int(resource), .address(limit), .value(0), doing: "setting limit \(resource)")
        }
    }

    static func obstacles(_ context: InspectContext) throws -> [Obstacle] {
        var found: [Obstacle] = []
        let status = context.status
        if let tracer = status.numbers("TracerPid").first, tracer != 0 {
            found.append(context.obstacle("process", "traced by pid \(tracer)"))
        }
        let own = status.numbers("NStgid").last
        for (field, what) in [("NSsid", "session"), ("NSpgid", "process group")] where status.numbers(field).last != own
        {
            found.append(context.obstacle(what, "not led by the container's first process, not carried yet"))
        }
        if try ProcessFiles.link("/proc/\(context.pid)/root") != "/" {
            found.append(context.obstacle("root directory", "changed by chroot, not carried yet"))
        }
        if let reason = try workingDirectory(of: context.pid).reason {
            found.append(context.obstacle("working directory", reason))
        }
        return try found + ProcessFiles.children(of: context.pid).map { ProcessObstacles.another($0, beside: context) }
    }
}
