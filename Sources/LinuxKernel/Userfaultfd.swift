// A userfaultfd that belongs to another process: asynchronous write-protection and the events of its mappings.
import CLinux
import Glibc

/// A change of an address space that the kernel reports through a userfaultfd.
public enum MappingEvent: Sendable, Equatable {
    case remapped(from: UInt64, to: UInt64, length: UInt64)
    /// MADV_DONTNEED and its kin are *about* to drop these pages.
    case removed(AddressRange)
    case unmapped(AddressRange)
    /// A child was born; its descriptor has been closed.
    case forked
}

/// Tracks writes without anybody waiting for them (UFFD_FEATURE_WP_ASYNC, Linux 6.7).
///
/// The program waits in munmap, mremap, madvise and fork until its event has been read, so one thread must always
/// read. When the last holder of the descriptor closes it, the program goes on and tracking ends.
public final class Userfaultfd: Sendable {
    public let descriptor: FileDescriptor

    /// Takes over a descriptor made in the tracked process and speaks UFFDIO_API on it.
    public init(_ descriptor: FileDescriptor) throws(KernelError) {
        self.descriptor = descriptor
        var api = clx_uffdio_api()
        api.api = 0xAA
        api.features = Self.features
        try check(
            clx_ioctl(descriptor.number, clx_UFFDIO_API, &api), "asking userfaultfd for asynchronous write-protection")
        let flags = clx_fcntl(descriptor.number, F_GETFL, 0)
        try check(clx_fcntl(descriptor.number, F_SETFL, Int(flags | O_NONBLOCK)), "making userfaultfd non-blocking")
    }

    static var features: UInt64 {
        [
            CLX_UFFD_FEATURE_WP_ASYNC, CLX_UFFD_FEATURE_WP_UNPOPULATED, CLX_UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
            CLX_UFFD_FEATURE_EVENT_FORK, CLX_UFFD_FEATURE_EVENT_REMAP, CLX_UFFD_FEATURE_EVENT_REMOVE,
            CLX_UFFD_FEATURE_EVENT_UNMAP,
        ].reduce(0) { $0 | UInt64($1) }
    }

    /// Starts tracking a range, which must lie in mappings that can be tracked.
    public func register(_ range: AddressRange) throws(KernelError) {
        var argument = clx_uffdio_register(
            start: range.lowerBound, len: UInt64(range.count), mode: UInt64(CLX_UFFDIO_REGISTER_MODE_WP), ioctls: 0)
        try check(
            clx_ioctl(descriptor.number, clx_UFFDIO_REGISTER, &argument),
            "tracking 0x\(String(range.lowerBound, radix: 16))-0x\(String(range.upperBound, radix: 16))")
    }

    /// Reads the events that are waiting.
    public func readEvents() throws(KernelError) -> [MappingEvent] {
        var messages = [clx_uffd_msg](repeating: clx_uffd_msg(), count: 64)
        let size = MemoryLayout<clx_uffd_msg>.stride
        let n = messages.withUnsafeMutableBytes { read(descriptor.number, $0.baseAddress, $0.count) }
        if n < 0 && (Glibc.errno == EAGAIN || Glibc.errno == EINTR) { return [] }
        try checkC(n, "reading userfaultfd events")
        return messages[..<(n / size)].compactMap { message in
            switch Int(message.event) {
            case CLX_UFFD_EVENT_REMAP: return .remapped(from: message.a, to: message.b, length: message.c)
            case CLX_UFFD_EVENT_REMOVE: return .removed(message.a..<message.b)
            case CLX_UFFD_EVENT_UNMAP: return .unmapped(message.a..<message.b)
            case CLX_UFFD_EVENT_FORK:
                close(Int32(truncatingIfNeeded: message.a & 0xffff_ffff))
                return .forked
            default: return nil
            }
        }
    }
}
