// Which parts of a file are written to, told by the tracepoints of its file system.
import CLinux
import Glibc

/// Follows files on ext4: every range that is written, cut off or punched out is known. A file that is mapped or
/// written past the page cache is not followed any more. Other file systems have no such tracepoints: there nothing can
/// be followed.
///
/// A range is told *before* it is written, under the lock of the inode. Whoever reads the file after `take` has to get
/// that lock first, and so wait for the write: lseek(2) to data does (`FileContent.read`).
public final class FileWrites {
    private struct Key: Hashable { var inode, device: UInt64 }
    private struct Pending {
        var ranges: [Range<UInt64>] = []
        /// What is told before the lock is taken: it may be read too early, so it is told again each time.
        var lasting: [Range<UInt64>] = []
        /// Written past the page cache, or mapped: what happens to it is not told.
        var isLost = false
    }
    private struct Offsets: Sendable {
        let inode, superblock, device, size, file, fileInode, position, count, host: Int16
    }

    private let files: FileDescriptor, ring: FileDescriptor
    /// What keeps the programs attached; nil: not tried yet, empty: this kernel does not let them be.
    private var links: [FileDescriptor]?
    private let consumer: UnsafeMutableRawPointer, producer: UnsafeMutableRawPointer
    private var pending: [Key: Pending] = [:]
    /// File systems by whether they were seen to tell of everything.
    private var tested: [UInt64: Bool] = [:]

    private static let ringSize = 1 << 22
    /// Marks of an event, in the upper bits of the device number.
    private static let lasting: UInt64 = 1 << 62, untold: UInt64 = 1 << 61

    /// - Throws: if this kernel does not allow it.
    public init() throws(KernelError) {
        files = FileDescriptor(owning: try check(clx_bpf_hash(16, 8, 4096), "making a map of files to follow"))
        ring = FileDescriptor(owning: try check(clx_bpf_ring(UInt32(Self.ringSize)), "making a ring of writes"))
        // SAFETY: the kernel's layout of a ring buffer: a page with the consumer's position, a page with the
        // producer's, then the data twice in a row, so that no record wraps. Unmapped in deinit.
        let page = Int(pageSize)
        guard let consumer = mmap(nil, page, PROT_READ | PROT_WRITE, MAP_SHARED, ring.number, 0), consumer != MAP_FAILED
        else { throw KernelError("mapping the ring of writes", Errno(errno)) }
        self.consumer = consumer
        guard let producer = mmap(nil, page + 2 * Self.ringSize, PROT_READ, MAP_SHARED, ring.number, page),
            producer != MAP_FAILED
        else {
            let error = errno
            munmap(consumer, page)
            throw KernelError("mapping the ring of writes", Errno(error))
        }
        self.producer = producer
    }

    deinit {
        munmap(consumer, Int(pageSize))
        munmap(producer, Int(pageSize) + 2 * Self.ringSize)
    }

    // ---- Following -----------------------------------------------------------------------------------------

    /// Begins to follow a file, or goes on. What is written from now on will be told.
    ///
    /// - Parameter folder: an open folder of the file's own file system.
    /// - Returns: whether it can be followed.
    public func follow(_ status: stat, folder: FileDescriptor) -> Bool {
        if pending[Self.key(status)] != nil { return true }
        // A program at each of the tracepoints costs every write of this machine a little: only where it is needed.
        if links == nil { links = (try? attach()) ?? [] }
        if links!.isEmpty { return false }
        let device = UInt64(status.st_dev)
        if tested[device] == nil { tested[device] = (try? tellsOfEverything(in: folder)) ?? false }
        return tested[device]! && begin(Self.key(status))
    }

    /// What was written to a file since the last call, as far as it was not told then; nil: it is not followed, or
    /// something has been missed: anything may have changed.
    public func take(_ file: FileIdentity) -> [Range<UInt64>]? {
        drain()
        let key = Key(inode: file.inode, device: Self.kernelNumber(file.device))
        guard let found = pending[key], !found.isLost, !wasMissed(key) else { return nil }
        pending[key]!.ranges = []
        return found.ranges + found.lasting
    }

    /// Whether anything may have been written to a file since the last `take`.
    public func hasChanged(_ file: FileIdentity) -> Bool {
        drain()
        let key = Key(inode: file.inode, device: Self.kernelNumber(file.device))
        guard let found = pending[key] else { return true }
        var missed: UInt64 = 0
        _ = withUnsafeBytes(of: key) { clx_bpf_lookup(files.number, $0.baseAddress, &missed) }
        return found.isLost || missed != 0 || !found.ranges.isEmpty || !found.lasting.isEmpty
    }

    public func isFollowed(_ file: FileIdentity) -> Bool {
        pending[Key(inode: file.inode, device: Self.kernelNumber(file.device))] != nil
    }

    private func begin(_ key: Key) -> Bool {
        var none: UInt64 = 0
        guard withUnsafeBytes(of: key, { clx_bpf_update(files.number, $0.baseAddress, &none) }) == 0 else {
            return false
        }
        pending[key] = Pending()
        return true
    }

    /// Did an event of the file not fit into the ring?
    private func wasMissed(_ key: Key) -> Bool {
        var missed: UInt64 = 0
        let known = withUnsafeBytes(of: key) { clx_bpf_lookup(files.number, $0.baseAddress, &missed) }
        if known == 0, missed == 0 { return false }
        var none: UInt64 = 0
        _ = withUnsafeBytes(of: key) { clx_bpf_update(files.number, $0.baseAddress, &none) }
        pending[key]!.ranges = []
        return true
    }

    private static func key(_ status: stat) -> Key {
        Key(inode: UInt64(status.st_ino), device: kernelNumber(UInt64(status.st_dev)))
    }

    /// A device number as the kernel keeps it, from that of stat(2).
    private static func kernelNumber(_ device: UInt64) -> UInt64 {
        let major = device >> 8 & 0xfff | device >> 32 & ~0xfff
        let minor = device & 0xff | device >> 12 & ~0xff
        return major << 20 | minor
    }

    /// Tries it with a file that has no name: what this kernel's tracepoints do not tell must not be relied on.
    private func tellsOfEverything(in folder: FileDescriptor) throws(KernelError) -> Bool {
        let file = FileDescriptor(
            owning: try checkC(
                openat(folder.number, ".", O_RDWR | O_CLOEXEC | 0o20200000 /* O_TMPFILE */, 0o600),
                "making a nameless file"))
        var status = stat(), byte: UInt8 = 1
        try checkC(fstat(file.number, &status), "looking at a nameless file")
        let key = Self.key(status)
        guard begin(key) else { return false }
        func tells(_ range: Range<UInt64>, _ act: () -> Bool) -> Bool {
            guard act() else { return false }
            drain()
            defer { pending[key] = Pending() }
            return (pending[key]!.ranges + pending[key]!.lasting).contains {
                $0.lowerBound <= range.lowerBound && $0.upperBound >= range.upperBound
            }
        }
        defer { pending[key] = nil }
        return tells(200_000..<200_001) { pwrite(file.number, &byte, 1, 200_000) == 1 }
            && tells(4096..<12288) { clx_punch_hole(file.number, 4096, 8192) == 0 }
            && tells(1000..<200_001) { ftruncate(file.number, 1000) == 0 } && tellsOfMapping(file, key)
    }

    private func tellsOfMapping(_ file: FileDescriptor, _ key: Key) -> Bool {
        guard let page = mmap(nil, Int(pageSize), PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0),
            page != MAP_FAILED
        else { return false }
        defer { munmap(page, Int(pageSize)) }
        page.storeBytes(of: 1, as: UInt8.self)
        drain()
        return pending[key]!.isLost
    }

    // ---- Events --------------------------------------------------------------------------------------------

    private func drain() {
        let data = producer + Int(pageSize)
        var position = clx_bpf_position(consumer)
        while position < clx_bpf_position(producer) {
            // A record has its length in front, with two flags: being written, and given up.
            let header = data + Int(position % UInt64(Self.ringSize))
            let length = clx_load_acquire(header.assumingMemoryBound(to: UInt32.self))
            if length & 1 << 31 != 0 { break }
            if length & 1 << 30 == 0, length == 32 {
                let words = (header + 8).assumingMemoryBound(to: UInt64.self)
                note(inode: words[0], device: words[1], offset: words[2], length: words[3])
            }
            position += UInt64((Int(length & 0x3fff_ffff) + 8 + 7) & ~7)
        }
        clx_bpf_set_position(consumer, position)
    }

    private func note(inode: UInt64, device: UInt64, offset: UInt64, length: UInt64) {
        let key = Key(inode: inode, device: device & 0xffff_ffff)
        guard pending[key] != nil else { return }
        if device & Self.untold != 0 { return pending[key]!.isLost = true }
        let (end, overflows) = offset.addingReportingOverflow(length)
        let range = offset..<(overflows ? UInt64.max : max(end, offset))
        if device & Self.lasting != 0 {
            pending[key]!.lasting = (pending[key]!.lasting + [range]).merged
        } else if let last = pending[key]!.ranges.last, last.lowerBound <= range.lowerBound,
            last.upperBound >= range.lowerBound
        {
            let index = pending[key]!.ranges.count - 1
            pending[key]!.ranges[index] = last.lowerBound..<max(last.upperBound, range.upperBound)
        } else {
            pending[key]!.ranges.append(range)
            if pending[key]!.ranges.count > 65536 { pending[key]!.ranges = pending[key]!.ranges.merged }
        }
    }

    // ---- Programs ------------------------------------------------------------------------------------------

    /// Found once: the kernel's types are megabytes.
    private static let offsets = Result { () throws(KernelError) -> Offsets in
        let types = try KernelTypes()
        return Offsets(
            inode: try types.offset(of: "i_ino", in: "inode"), superblock: try types.offset(of: "i_sb", in: "inode"),
            device: try types.offset(of: "s_dev", in: "super_block"), size: try types.offset(of: "i_size", in: "inode"),
            file: try types.offset(of: "ki_filp", in: "kiocb"), fileInode: try types.offset(of: "f_inode", in: "file"),
            position: try types.offset(of: "ki_pos", in: "kiocb"), count: try types.offset(of: "count", in: "iov_iter"),
            host: try types.offset(of: "host", in: "address_space"))
    }

    private func attach() throws(KernelError) -> [FileDescriptor] {
        let offsets = try Self.offsets.get()
        var links: [FileDescriptor] = []
        // Of these the arguments are inode, offset, length.
        for name in ["ext4_da_write_begin", "ext4_write_begin"] {
            links.append(try attach(name, offsets, .range, marks: 0))
        }
        for name in ["ext4_fallocate_enter", "ext4_punch_hole", "ext4_zero_range"] {
            links.append(try attach(name, offsets, .range, marks: Self.lasting))
        }
        // These move all that follows.
        for name in ["ext4_collapse_range", "ext4_insert_range"] {
            links.append(try attach(name, offsets, .fromOffset, marks: Self.lasting))
        }
        links.append(try attach("ext4_truncate_enter", offsets, .fromSize, marks: 0))
        links.append(try attach("iomap_dio_rw_begin", offsets, .request, marks: Self.untold))
        // Somebody maps it: its first look at a page. Stores follow of which nothing tells.
        for name in ["mm_filemap_fault", "mm_filemap_map_pages"] {
            links.append(try attach(name, offsets, .mapping, marks: Self.untold))
        }
        return links
    }

    private enum Extent { case range, fromOffset, fromSize, request, mapping }

    /// A program that puts inode, device, offset and length into the ring if the inode is followed.
    private func attach(_ tracepoint: String, _ offsets: Offsets, _ extent: Extent, marks: UInt64) throws(KernelError)
        -> FileDescriptor
    {
        var program = TracepointProgram()
        let (inode, device, offset, length, scratch): (Int16, Int16, Int16, Int16, Int16) = (-48, -40, -32, -24, -56)
        program.load(7, from: 1, 0)
        switch extent {
        case .range, .fromOffset:
            program.load(0, from: 1, 8)
            program.store(0, to: 10, offset)
            if extent == .range { program.load(0, from: 1, 16) } else { program.set(0, -1) }
            program.store(0, to: 10, length)
        case .fromSize:
            program.read(7, offsets.size, slot: offset)
            program.set(0, -1)
            program.store(0, to: 10, length)
        case .request:
            program.load(8, from: 1, 8)
            program.read(8, offsets.count, slot: length)
            program.read(7, offsets.position, slot: offset)
            program.read(7, offsets.file, slot: scratch)
            program.copy(7, 0)
            program.read(7, offsets.fileInode, slot: scratch)
            program.copy(7, 0)
        case .mapping:
            program.set(0, 0)
            program.store(0, to: 10, offset)
            program.store(0, to: 10, length)
            program.read(7, offsets.host, slot: scratch)
            program.copy(7, 0)
        }
        program.read(7, offsets.inode, slot: inode)
        program.read(7, offsets.superblock, slot: scratch)
        program.copy(7, 0)
        program.read(7, offsets.device, slot: scratch)
        program.shiftLeft(0, 32)
        program.shiftRight(0, 32)
        program.store(0, to: 10, device)
        program.map(1, files)
        program.copy(2, 10)
        program.add(2, Int32(inode))
        program.call(1)  // bpf_map_lookup_elem
        program.end(ifZero: true)
        program.copy(6, 0)
        if marks != 0 {
            program.load(1, from: 10, device)
            program.set(2, Int32(marks >> 32))
            program.shiftLeft(2, 32)
            program.or(1, 2)
            program.store(1, to: 10, device)
        }
        program.map(1, ring)
        program.copy(2, 10)
        program.add(2, Int32(inode))
        program.set(3, 32)
        program.set(4, 0)
        program.call(130)  // bpf_ringbuf_output
        program.end(ifZero: true)
        program.set(1, 1)
        program.store(1, to: 6, 0)
        program.end()
        return try program.attach(to: tracepoint)
    }
}
