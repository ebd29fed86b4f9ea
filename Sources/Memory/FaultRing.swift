// One CPU's page faults: a ring that the kernel fills and we empty.
import CLinux
import Glibc
import LinuxKernel

/// The events of one CPU and the ring they share.
final class FaultRing {
    struct Sample {
        var pid: Int32
        var time: Int64
        var address: UInt64
    }

    /// The first owns the ring, the others write into it.
    private let descriptors: [FileDescriptor]
    private let mapping: UnsafeMutableRawPointer
    private let size: Int
    private let kinds: FaultKinds
    private let recordSize: Int
    private var full = false

    var descriptor: Int32 { descriptors[0].number }

    /// Opens the events of a cgroup (its folder's descriptor) on one CPU. `size` is a power of two of pages.
    init(cgroup: FileDescriptor, cpu: Int32, kinds: FaultKinds, recordSize: Int, watermark: Int, size: Int)
        throws(KernelError)
    {
        (self.kinds, self.size, self.recordSize) = (kinds, size, recordSize)
        descriptors = try Self.open(kinds, target: cgroup.number, isCgroup: true, cpu: cpu, watermark: watermark)
        let first = descriptors[0].number
        let mapping = mmap(nil, size + Int(pageSize), PROT_READ | PROT_WRITE, MAP_SHARED, first, 0)
        guard let mapping, mapping != MAP_FAILED else {
            throw KernelError("mapping the ring of page faults", Errno(Glibc.errno))
        }
        self.mapping = mapping
        for other in descriptors.dropFirst() {
            try check(
                clx_ioctl_value(other.number, clx_PERF_EVENT_IOC_SET_OUTPUT, UInt64(first)),
                "joining two kinds of page faults")
        }
        for each in descriptors {
            try check(clx_ioctl_value(each.number, clx_PERF_EVENT_IOC_ENABLE, 0), "enabling page-fault events")
        }
    }

    deinit { munmap(mapping, size + Int(pageSize)) }

    /// Opens one event of each kind, without a ring.
    static func open(_ kinds: FaultKinds, target: Int32, isCgroup: Bool, cpu: Int32, watermark: Int) throws(KernelError)
        -> [FileDescriptor]
    {
        var opened: [FileDescriptor] = []
        for config in kinds.configs {
            var plan = clx_perf_plan(
                tracepoint: kinds.isTracepoint ? 1 : 0, watermark: UInt32(clamping: watermark), config: config,
                target: target,
                is_cgroup: isCgroup ? 1 : 0, cpu: cpu)
            let event = FileDescriptor(owning: try check(clx_perf_event_open(&plan), "perf_event_open for page faults"))
            if let filter = kinds.filter {
                var text = Array(filter.utf8CString)
                try check(
                    clx_ioctl(event.number, clx_PERF_EVENT_IOC_SET_FILTER, &text),
                    "filtering page faults by \"\(filter)\"")
            }
            opened.append(event)
        }
        return opened
    }

    /// Empties the ring. True if the kernel had to drop something.
    func drain(_ body: (Sample) -> Void) -> Bool {
        // SAFETY: the kernel's layout of the mapping: one control page, then `size` bytes of data. Records are
        // multiples of 8 bytes and begin at such, so a 64-bit word never wraps; offsets are masked by the size.
        let data = mapping + Int(pageSize)
        let head = clx_perf_head(mapping)
        var tail = mapping.load(fromByteOffset: Self.tailOffset, as: UInt64.self)
        func word(_ index: Int) -> UInt64 {
            data.load(fromByteOffset: Int(truncatingIfNeeded: tail &+ UInt64(index * 8)) & (size - 1), as: UInt64.self)
        }
        // The kernel keeps a byte free. What it then dropped it says before the next record that fits, which may come
        // much later: a full ring says it now, and that record is no news.
        let wasFull = full
        if head != tail { full = Int(head &- tail) + recordSize >= size }
        var lost = full && head != tail
        let start = tail
        while tail < head {
            let header = word(0)
            let length = header >> 48
            guard length >= 8, length & 7 == 0, length <= head &- tail else {
                lost = true
                tail = head
                break
            }
            switch Int(header & 0xffff_ffff) {
            case CLX_PERF_RECORD_LOST: if !(wasFull && tail == start) { lost = true }
            case CLX_PERF_RECORD_SAMPLE:
                var address = word(3)
                if kinds.isTracepoint {
                    // A 32-bit length stands before the tracepoint's record: 8-byte fields lie across two words.
                    let at = 4 + kinds.addressOffset
                    address = at & 7 == 0 ? word(3 + at / 8) : word(3 + at / 8) >> 32 | word(4 + at / 8) << 32
                }
                body(
                    Sample(pid: Int32(truncatingIfNeeded: word(1)), time: Int64(bitPattern: word(2)), address: address))
            default: break
            }
            tail &+= length
        }
        clx_perf_set_tail(mapping, tail)
        return lost
    }

    /// perf_event_mmap_page.data_tail.
    private static let tailOffset = 1024 + 8
}
