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

    func collect(_ context: CaptureContext, _ answers: CallResults, into image: inout ProcessImage) throws {
        var settings = ProcessSettings()
        settings.workingDirectory = try ProcessFiles.link("/proc/\(context.pid)/cwd")
        settings.umask = UInt32(context.status["Umask"] ?? "", radix: 8) ?? 0o22
        settings.limits = limits.flatMap { [answers.word($0), answers.word($0, at: 1)] }
        settings.dumpable = UInt32(truncatingIfNeeded: answers[dumpable])
        settings.childSubreaper = answers.int32(subreaper) != 0
        settings.personality = UInt32(truncatingIfNeeded: answers[personality])
        settings.oomScoreAdj = Int32((try? SmallFile.text("/proc/\(context.pid)/oom_score_adj")) ?? "") ?? 0
        settings.coredumpFilter =
            UInt32((try? SmallFile.text("/proc/\(context.pid)/coredump_filter")) ?? "", radix: 16) ?? 0x33
        settings.seccompMode = UInt32(context.status.numbers("Seccomp").first ?? 0)
        image.settings = settings
    }

    static func restore(_ image: ProcessImage, _ context: RestoreContext, _ batch: inout CallBatch) throws {
        let settings = image.settings
        let directory = batch.string(settings.workingDirectory)
        batch.call(.chdir, .address(directory), doing: "changing to \(settings.workingDirectory)")
        batch.call(.umask, .int(settings.umask), doing: "setting the umask")
        if settings.childSubreaper {
            batch.call(.prctl, .value(36), .value(1), doing: "setting PR_SET_CHILD_SUBREAPER")
        }
        batch.call(.personality, .int(settings.personality), doing: "setting the personality")
        for resource in 0..<limitCount where settings.limits.count == 2 * limitCount {
            let limit = batch.words([settings.limits[2 * resource], settings.limits[2 * resource + 1]])
            batch.call(
                .prlimit64, .value(0), .int(resource), .address(limit), .value(0), doing: "setting limit \(resource)")
        }
        let own = "/proc/\(context.stub.pid)/"
        if try SmallFile.text(own + "oom_score_adj") != "\(settings.oomScoreAdj)" {
            try SmallFile.write("\(settings.oomScoreAdj)", to: own + "oom_score_adj")
        }
        if UInt32(try SmallFile.text(own + "coredump_filter"), radix: 16) != settings.coredumpFilter {
            try SmallFile.write("0x\(String(settings.coredumpFilter, radix: 16))", to: own + "coredump_filter")
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
        let directory = try ProcessFiles.link("/proc/\(context.pid)/cwd")
        if directory.hasSuffix(" (deleted)") {
            found.append(context.obstacle("working directory", "deleted: \(directory)"))
        }
        for child in try ProcessFiles.children(of: context.pid) {
            found.append(
                context.obstacle("child \(child) (\(processName(child)))", "more than one process, not carried yet"))
        }
        return found
    }
}
