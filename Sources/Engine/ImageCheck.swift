// Every check of the indexes, identities and bounds of what a peer or a file describes, in one place: restore takes
// only what has passed it. What the kernel refuses by itself is left to the kernel.
import CLinux
import Glibc
import LinuxKernel

/// The layout of an address space that can be made: in ascending order, not overlapping, whole pages.
public struct CheckedLayout: Sendable {
    public let areas: [MemoryArea]

    public init(_ areas: [MemoryArea]) throws(EngineError) {
        var end: UInt64 = 0
        for area in areas {
            try need(area.start >= end && area.start < area.end, "memory 0x\(hex(area.start))-0x\(hex(area.end))")
            try need(area.start % pageSize == 0 && area.end % pageSize == 0, "memory that is not of whole pages")
            end = area.end
            try Self.check(area)
        }
        self.areas = areas
    }

    private static func check(_ area: MemoryArea) throws(EngineError) {
        // [vsyscall] is the one mapping above a program's own.
        try need(area.end <= 1 << 47 || area.kind == .vsyscall, "memory up to 0x\(hex(area.end))")
        try need(area.protection <= 7, "memory with protection \(area.protection)")
        try need(area.offset % pageSize == 0 && area.offset <= 1 << 62, "memory at offset \(area.offset)")
        try need(area.name.utf8.count < 80 && !area.name.utf8.contains(0), "a mapping's name")
        switch area.kind {
        case .privateFile, .sharedFile: try checkPath(area.path)
        case .anonymous, .stack, .sharedAnonymous, .vdso, .vvar, .vsyscall: break
        case .UNRECOGNIZED(let kind): throw .invalidImage("memory of kind \(kind)")
        }
    }
}

/// A process image that can be made into a process, as far as an image tells.
public struct CheckedImage: Sendable {
    public private(set) var image: ProcessImage

    /// - Throws: what in it cannot be.
    public init(_ image: ProcessImage) throws(EngineError) {
        guard image.version == ProcessImage.currentVersion else {
            throw .invalidImage("format \(image.version), this engine reads \(ProcessImage.currentVersion)")
        }
        self.image = image
        try checkSettings()
        try checkThreads()
        try checkSignals()
        try checkDescriptors()
        for file in image.files { try Self.check(file) }
    }

    /// Adds what was captured last, by the index of its file.
    public mutating func complete(_ late: [UInt32: LateState]) throws(EngineError) {
        try image.editFiles { (files) throws(EngineError) in
            for (index, state) in late {
                guard Int(index) < files.count, try Self.complete(&files[Int(index)], with: state) else {
                    throw .invalidImage("late state of file \(index), which cannot have it")
                }
            }
        }
    }

    private static func complete(_ file: inout OpenFile, with late: LateState) throws(EngineError) -> Bool {
        for kind in descriptorKinds { if try kind.complete(&file, with: late) { return true } }
        return false
    }

    // ---- The process ---------------------------------------------------------------------------------------

    private func checkSettings() throws(EngineError) {
        let settings = image.settings
        try checkPath(settings.workingDirectory)
        try checkPath(image.executable)
        try need(settings.limits.isEmpty || settings.limits.count == 32, "\(settings.limits.count) limits")
        try need(settings.dumpable <= 2, "dumpable \(settings.dumpable)")
        try need(settings.umask <= 0o777, "umask \(settings.umask)")
        try need((-1000...1000).contains(settings.oomScoreAdj), "an OOM score of \(settings.oomScoreAdj)")
        let auxiliary = image.addressSpace.auxv.count
        try need(auxiliary <= 4096, "an auxiliary vector of \(auxiliary) bytes")
    }

    private func checkThreads() throws(EngineError) {
        let tids = Set(image.threads.map(\.tid))
        try need(tids.count == image.threads.count, "two threads of one TID")
        try need(tids.contains(image.pid), "pid \(image.pid) without its first thread")
        for thread in image.threads {
            try need((1...highestPID).contains(thread.tid), "thread \(thread.tid)")
            try need(
                thread.registers.count == MemoryLayout<user_regs_struct>.size,
                "registers of \(thread.registers.count) bytes")
            // The legacy part and its header are the least.
            try need((576...65536).contains(thread.xstate.count), "register state of \(thread.xstate.count) bytes")
            try need(thread.affinity.count <= 8192, "an affinity of \(thread.affinity.count) bytes")
            for record in thread.pending { try Self.checkSignal(record) }
            let credentials = thread.credentials
            try need(credentials.uid.count == 4 && credentials.gid.count == 4, "credentials without four IDs each")
            try need(credentials.groups.count <= 65536, "\(credentials.groups.count) groups")
        }
    }

    private func checkSignals() throws(EngineError) {
        try need(image.signals.actions.count == 64 * 32, "signal actions of \(image.signals.actions.count) bytes")
        for record in image.signals.pending { try Self.checkSignal(record) }
        let timers = image.timers
        try need(timers.intervalTimers.count <= 3, "\(timers.intervalTimers.count) interval timers")
        for timer in timers.intervalTimers {
            try need(timer.count == 32, "an interval timer of \(timer.count) bytes")
        }
        try need(Set(timers.posix.map(\.id)).count == timers.posix.count, "two timers of one number")
        for timer in timers.posix {
            try need(timer.id >= 0, "timer \(timer.id)")
            try need(timer.intervalNs >= 0 && timer.remainingNs >= 0, "timer \(timer.id) with a negative time")
            try need((0...64).contains(timer.signal), "timer \(timer.id) with signal \(timer.signal)")
        }
    }

    /// Signals that came after the rest of the image.
    public func check(_ late: LateSignals) throws(EngineError) {
        for record in late.ofProcess { try Self.checkSignal(record) }
        for (tid, records) in late.ofThreads {
            try need(
                image.threads.contains { $0.tid == tid }, "signals for thread \(tid), which the image does not have")
            for record in records { try Self.checkSignal(record) }
        }
    }

    /// A siginfo_t, whose first word is the signal's number.
    private static func checkSignal(_ record: Bytes) throws(EngineError) {
        try need(record.count == 128, "a pending signal of \(record.count) bytes")
        let number = record.withUnsafeBytes { $0.loadUnaligned(as: Int32.self) }
        try need((1...64).contains(number), "pending signal \(number)")
    }

    // ---- Descriptors and files -----------------------------------------------------------------------------

    private func checkDescriptors() throws(EngineError) {
        try need(Set(image.descriptors.map(\.number)).count == image.descriptors.count, "two descriptors of one number")
        for descriptor in image.descriptors {
            // Above all of them, numbers are needed to put files aside.
            try need((0..<1 << 30).contains(descriptor.number), "descriptor \(descriptor.number)")
            try need(Int(descriptor.file) < image.files.count, "descriptor \(descriptor.number) without its file")
        }
    }

    private static func check(_ file: OpenFile) throws(EngineError) {
        switch file.kind {
        case .path(let path):
            try checkPath(path.path)
            try need(path.offset <= UInt64(Int64.max), "a file's offset of \(path.offset)")
        case .stream(let stream): try need(stream.number <= 2, "standard stream \(stream.number)")
        case .pipe(let end): try check(end)
        case .event, .epoll: break
        case .tcpListener(let listener):
            try checkFamily(listener.family)
            try check(listener.address, of: listener.family)
            try check(listener.options)
        // The rest of it comes last.
        case .tcp(let connection): try checkFamily(connection.family)
        case .udp(let socket):
            try checkFamily(socket.family)
            if !socket.local.isEmpty { try check(socket.local, of: socket.family) }
            if !socket.remote.isEmpty { try check(socket.remote, of: socket.family) }
            try check(socket.options)
            for datagram in socket.queue.datagrams { try check(datagram) }
        case nil: throw .invalidImage("an open file of unknown kind")
        }
    }

    private static func check(_ end: PipeEnd) throws(EngineError) {
        try need(end.capacity <= 1 << 30, "a pipe of \(end.capacity) bytes")
        try need(end.content.count <= Int(end.capacity), "a pipe that holds more than it can")
        let packets = end.packets.reduce(into: UInt64(0)) { $0 += UInt64($1) }
        try need(
            end.packets.isEmpty || packets == UInt64(end.content.count), "packets that are not their pipe's content")
    }

    static func check(_ connection: TCPConnection) throws(EngineError) {
        try check(connection.local, of: connection.family)
        try check(connection.remote, of: connection.family)
        try check(connection.options)
        try need(connection.window.count == 20, "a TCP window of \(connection.window.count) bytes")
        try need(Int(connection.unsent) <= connection.sendQueue.count, "more unsent than there is to send")
        try need(
            connection.sendWindowScale <= 14 && connection.receiveWindowScale <= 14, "a TCP window's scale above 14")
    }

    static func check(_ datagram: Datagram) throws(EngineError) {
        try need(datagram.source.count == 16 || datagram.source.count == 28, "a datagram without its sender")
        // What an IP packet of the largest size has room for.
        try need(datagram.content.count <= 65527, "a datagram of \(datagram.content.count) bytes")
        try need(datagram.segment <= 65527, "a datagram in pieces of \(datagram.segment) bytes")
        try need(
            !datagram.hasDestination || [4, 16].contains(datagram.destination.count),
            "a datagram to an address of \(datagram.destination.count) bytes")
    }

    private static func check(_ options: SocketOptions) throws(EngineError) {
        try need(options.options.count <= 256, "\(options.options.count) options of a socket")
        for option in options.options {
            try need(option.value.count <= 256, "a socket's option of \(option.value.count) bytes")
        }
    }

    private static func checkFamily(_ family: Int32) throws(EngineError) {
        try need(family == AF_INET || family == AF_INET6, "a socket of family \(family)")
    }

    /// A sockaddr_in or sockaddr_in6, by the family of its socket.
    private static func check(_ address: Bytes, of family: Int32) throws(EngineError) {
        try need(
            address.count == (family == AF_INET ? 16 : 28), "a socket's address of \(address.count) bytes")
        let own = address.withUnsafeBytes { $0.loadUnaligned(as: UInt16.self) }
        try need(Int32(own) == family, "an address of family \(own)")
    }
}

/// PID_MAX_LIMIT.
private let highestPID: Int32 = 1 << 22

private func need(_ holds: Bool, _ what: @autoclosure () -> String) throws(EngineError) {
    if !holds { throw .invalidImage(what()) }
}

/// The same for a path that need not be text.
private func checkPath(_ path: Bytes) throws(EngineError) {
    try need(path.first == UInt8(ascii: "/") && path.count <= 4096 && !path.contains(0), "a path that is none")
}
private func checkPath(_ path: String) throws(EngineError) {
    try need(
        path.utf8.first == UInt8(ascii: "/") && path.utf8.count <= 4096 && !path.utf8.contains(0),
        "a path that is none")
}

private func hex(_ value: UInt64) -> String { String(value, radix: 16) }
