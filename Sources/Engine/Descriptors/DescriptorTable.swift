// The descriptor table: which number is which open file, and the making of all of them.
import CLinux
import Glibc
import LinuxKernel

enum DescriptorTable {
    // ---- Capture -------------------------------------------------------------------------------------------

    /// Adds the questions only the process can answer: the flags of each number.
    static func ask(_ numbers: [Int32], _ batch: inout CallBatch) -> [Int] {
        numbers.map { batch.call(.fcntl, .int($0), .int(F_GETFD), doing: "reading the flags of fd \($0)") }
    }

    static func collect(
        _ process: SourceProcess, _ numbers: [Int32], _ flags: [Int], _ answers: CallResults,
        _ context: DescriptorContext,
        into image: inout ProcessImage
    ) throws -> [DescriptorProbe] {
        var probes: [DescriptorProbe] = []
        for (number, flag) in zip(numbers, flags) {
            let probe = try DescriptorProbe(number, of: process.pid, process.pidfd)
            var descriptor = Descriptor()
            descriptor.number = number
            descriptor.closeOnExec = answers[flag] & Int64(FD_CLOEXEC) != 0
            if let same = try probes.firstIndex(where: { try sameFile($0, probe, process.pid) }) {
                descriptor.file = image.descriptors[same].file
            } else {
                descriptor.file = UInt32(image.files.count)
                image.files.append(try capture(probe, context))
            }
            image.descriptors.append(descriptor)
            probes.append(probe)
        }
        if let (probe, reason) = try UDPKind.sharing(probes) { throw EngineError.obstacles([named(probe, reason)]) }
        return probes
    }

    private static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile {
        var file = OpenFile()
        file.flags = UInt32(bitPattern: probe.flags & ~O_CLOEXEC)
        file.owner = clx_fcntl(probe.copy.number, F_GETOWN, 0)
        file.ownerSignal = clx_fcntl(probe.copy.number, 11, 0)  // F_GETSIG
        guard let kind = kind(of: probe, context), obstacle(probe, kind) == nil else {
            throw EngineError.obstacles([self.obstacle(probe, context)!])
        }
        file.kind = try kind.capture(probe, context)
        return file
    }

    private static func sameFile(_ a: DescriptorProbe, _ b: DescriptorProbe, _ pid: Int32) throws -> Bool {
        guard a.status.st_ino == b.status.st_ino, a.status.st_dev == b.status.st_dev, a.flags == b.flags,
            a.link == b.link
        else {
            return false
        }
        return try check(
            clx_kcmp(pid, pid, 0, UInt64(a.number), UInt64(b.number)), "comparing fds \(a.number) and \(b.number)") == 0
    }

    private static func kind(of probe: DescriptorProbe, _ context: DescriptorContext) -> (any DescriptorKind.Type)? {
        if context.streams[.init(probe.status)] != nil { return StreamKind.self }
        return descriptorKinds.first { $0.matches(probe) }
    }

    // ---- Obstacles -----------------------------------------------------------------------------------------

    static func obstacles(_ context: InspectContext, _ descriptors: DescriptorContext) throws -> [Obstacle] {
        let pidfd = FileDescriptor(owning: try check(clx_pidfd_open(context.pid, 0), "opening pid \(context.pid)"))
        var found: [Obstacle] = [], pipeEnds: [UInt64: Set<Bool>] = [:], numbers: [UInt64: Int32] = [:]
        var probes: [DescriptorProbe] = []
        for number in try ProcessFiles.descriptors(of: context.pid) {
            // One that was closed since it was listed is none.
            guard let probe = try? DescriptorProbe(number, of: context.pid, pidfd) else { continue }
            if let obstacle = obstacle(probe, descriptors) { found.append(obstacle) }
            probes.append(probe)
            if PipeKind.matches(probe), descriptors.streams[.init(probe.status)] == nil {
                pipeEnds[UInt64(probe.status.st_ino), default: []].insert(probe.flags & O_ACCMODE == O_WRONLY)
                numbers[UInt64(probe.status.st_ino)] = number
            }
        }
        if let (probe, reason) = try UDPKind.sharing(probes) { found.append(named(probe, reason)) }
        for (inode, ends) in pipeEnds where ends.count == 1 {
            found.append(
                context.obstacle("fd \(numbers[inode]!)", "pipe whose other end is not in the process, not carried yet")
            )
        }
        return found
    }

    private static func obstacle(_ probe: DescriptorProbe, _ context: DescriptorContext) -> Obstacle? {
        guard let kind = kind(of: probe, context) else {
            return named(probe, "\(probe.type == S_IFSOCK ? socketName(probe) : probe.link), not carried yet")
        }
        return obstacle(probe, kind)
    }

    private static func obstacle(_ probe: DescriptorProbe, _ kind: any DescriptorKind.Type) -> Obstacle? {
        if probe.flags & 0o20000 != 0 { return named(probe, "signal-driven I/O (O_ASYNC), not carried yet") }
        return kind.obstacle(probe).map { named(probe, $0) }
    }

    /// What kind of socket a link does not tell.
    private static func socketName(_ probe: DescriptorProbe) -> String {
        func option(_ name: Int32) -> Int32 { (try? TCPSocket.get(probe.copy.number, SOL_SOCKET, name)) ?? -1 }
        let families = [AF_UNIX: "unix", AF_INET: "IPv4", AF_INET6: "IPv6", AF_NETLINK: "netlink", AF_PACKET: "packet"]
        let types: [Int32: String] = [1: "stream", 2: "datagram", 3: "raw", 5: "sequenced packet"]
        let family = option(SO_DOMAIN), type = option(SO_TYPE)
        return "\(families[family] ?? "family \(family)") \(types[type] ?? "type \(type)") socket"
    }

    static func named(_ probe: DescriptorProbe, _ reason: String) -> Obstacle {
        Obstacle(pid: probe.pid, process: processName(probe.pid), subject: "fd \(probe.number)", reason: reason)
    }

    // ---- Restore -------------------------------------------------------------------------------------------

    /// The calls that make all files and put them at their numbers.
    static func making(_ image: ProcessImage, _ stub: StubProcess) throws -> CallBatch {
        let kinds = try kinds(of: image)
        guard image.descriptors.allSatisfy({ Int($0.file) < image.files.count && $0.number >= 0 }) else {
            throw EngineError.invalidImage("a descriptor without its file")
        }
        return try makingBatch(image, kinds, stub)
    }

    /// Gives the files that were made their state, but for connections.
    static func fill(_ image: ProcessImage, _ stub: StubProcess, _ tools: RestoreTools) throws {
        try fill(image, try kinds(of: image), stub, tools) { $0 != TCPConnectionKind.self }
    }

    /// Brings the connections and queues to life, then what watches descriptors.
    static func finish(_ image: ProcessImage, _ stub: StubProcess, _ tools: RestoreTools) throws {
        let kinds = try kinds(of: image)
        try fill(image, kinds, stub, tools) { $0 == TCPConnectionKind.self }
        try finishUDP(image, stub, tools)
        var batch = CallBatch()
        for (index, file) in image.files.enumerated() {
            guard let number = image.descriptors.first(where: { Int($0.file) == index })?.number else { continue }
            kinds[index].connect(file, number: number, &batch)
        }
        if !batch.isEmpty { _ = try stub.run(batch) }
    }

    private static func finishUDP(_ image: ProcessImage, _ stub: StubProcess, _ tools: RestoreTools) throws {
        var sockets: [(copy: FileDescriptor, image: UDPEndpoint)] = []
        for (index, file) in image.files.enumerated() {
            guard case .udp(let socket) = file.kind, let copy = try copy(ofFile: index, image, stub) else { continue }
            sockets.append((copy, socket))
        }
        try UDPSocket.finish(sockets.map { ($0.copy.number, $0.image) }, tools.datagrams)
    }

    /// The engine's own descriptor of a file that was made.
    private static func copy(ofFile index: Int, _ image: ProcessImage, _ stub: StubProcess) throws -> FileDescriptor? {
        guard let number = image.descriptors.first(where: { Int($0.file) == index })?.number else { return nil }
        return FileDescriptor(
            owning: try check(clx_pidfd_getfd(stub.pidfd.number, number), "taking fd \(number) of pid \(stub.pid)"))
    }

    private static func kinds(of image: ProcessImage) throws -> [any (DescriptorKind & Sendable).Type] {
        try image.files.map { file in
            guard let kind = file.kind, let found = descriptorKinds.first(where: { $0.made(kind) }) else {
                throw EngineError.invalidImage("an open file of unknown kind")
            }
            return found
        }
    }

    private static func fill(
        _ image: ProcessImage, _ kinds: [any (DescriptorKind & Sendable).Type], _ stub: StubProcess,
        _ tools: RestoreTools,
        which: (any DescriptorKind.Type) -> Bool
    ) throws {
        for (index, file) in image.files.enumerated() where kinds[index].needsFilling && which(kinds[index]) {
            guard let copy = try copy(ofFile: index, image, stub) else { continue }
            try kinds[index].fill(file, copy, image, tools)
        }
    }

    /// Files are made at whatever numbers are free, put aside above all final numbers, and then moved to their places.
    private static func makingBatch(
        _ image: ProcessImage, _ kinds: [any (DescriptorKind & Sendable).Type], _ stub: StubProcess
    ) throws -> CallBatch {
        var batch = CallBatch()
        let aside = (image.descriptors.map(\.number).max() ?? 2) + 1
        func putAside(_ made: CallBatch.Argument, _ purpose: String) -> CallBatch.Argument {
            let moved = batch.call(
                .fcntl, made, .int(F_DUPFD_CLOEXEC), .int(aside), doing: "making room for \(purpose)")
            batch.call(.close, made, doing: "closing the first number of \(purpose)")
            return .result(moved)
        }
        let open = try ProcessFiles.descriptors(of: stub.pid)
        let streams = (0..<3).filter { open.contains($0) }.map { putAside(.int($0), "a standard stream") }
        for number in open where number > 2 {
            batch.call(.close, .int(number), doing: "closing the stub's fd \(number)")
        }

        var context = DescriptorRestore(image: image, streams: streams, pipes: [:])
        for file in image.files {
            guard case .pipe(let end) = file.kind, context.pipes[end.pipe] == nil else { continue }
            let ends = batch.space(8)
            batch.call(.pipe2, .address(ends), .int(O_CLOEXEC), doing: "making a pipe")
            context.pipes[end.pipe] = ends
        }
        var files: [CallBatch.Argument] = []
        for (file, kind) in zip(image.files, kinds) {
            files.append(putAside(try kind.create(file, context, &batch), "an open file"))
        }
        for ends in context.pipes.values {
            batch.call(.close, .word(ends), doing: "closing a pipe's first number")
            batch.call(.close, .word(ends.advanced(by: 4)), doing: "closing a pipe's first number")
        }
        for (file, argument) in zip(image.files, files) {
            switch file.kind {
            case .path, .stream, nil: break
            default:
                batch.call(
                    .fcntl, argument, .int(F_SETFL),
                    .int(Int32(bitPattern: file.flags) & (O_NONBLOCK | O_APPEND | O_DIRECT_)),
                    doing: "setting file flags")
            }
            if file.owner != 0 {
                batch.call(.fcntl, argument, .int(F_SETOWN), .int(file.owner), doing: "setting a file's owner")
            }
            if file.ownerSignal != 0 {
                batch.call(.fcntl, argument, .value(10), .int(file.ownerSignal), doing: "setting a file's signal")
            }
        }
        for descriptor in image.descriptors {
            batch.call(
                .dup3, files[Int(descriptor.file)], .int(descriptor.number),
                .int(descriptor.closeOnExec ? O_CLOEXEC : 0),
                doing: "placing fd \(descriptor.number)")
        }
        for argument in files + streams { batch.call(.close, argument, doing: "closing a number put aside") }
        return batch
    }
}
