// Another process's memory: bulk reads and writes, and single pages whatever their protection.
import CLinux
import Glibc

/// A range of addresses, page aligned wherever pages are meant.
public typealias AddressRange = Range<UInt64>

/// 4096: the only page size of the architecture carried.
public let pageSize: UInt64 = 4096

/// The memory of one process.
public final class ProcessMemory: Sendable {
    public let pid: Int32
    private let memory: FileDescriptor

    public init(pid: Int32) throws(KernelError) {
        self.pid = pid
        memory = try FileDescriptor(opening: "/proc/\(pid)/mem", O_RDWR)
    }

    /// Is this still the process's memory? Another takes its place when the process executes a program or ends.
    public var isCurrent: Bool {
        var byte: UInt8 = 0
        // Memory that is gone reads as an empty file; of the process's own, address 0 is mostly not mapped, an error.
        return clx_pread(memory.number, &byte, 1, 0) != 0
    }

    /// IOV_MAX.
    private static let vectorLimit = 1024

    /// Reads ranges one after another into `buffer`, which holds exactly all of them.
    ///
    /// Ranges that may not be read (PROT_NONE) are read by force. Returns false if one is not mapped any more.
    public func read(_ ranges: some Collection<AddressRange>, into buffer: UnsafeMutableRawBufferPointer)
        throws(KernelError) -> Bool
    {
        try transfer(ranges, buffer) {
            clx_process_vm_readv(pid, $0, 1, $1, $2)
        } single: {
            clx_pread(memory.number, $1, $2, $0)
        }
    }

    /// Writes `buffer` over ranges, whatever their protection. Returns false if one is not mapped.
    public func write(_ ranges: some Collection<AddressRange>, from buffer: UnsafeRawBufferPointer) throws(KernelError)
        -> Bool
    {
        // SAFETY: process_vm_writev and pwrite only read from the local buffer.
        let buffer = UnsafeMutableRawBufferPointer(mutating: buffer)
        return try transfer(ranges, buffer) {
            clx_process_vm_writev(pid, $0, 1, $1, $2)
        } single: {
            clx_pwrite(memory.number, $1, $2, $0)
        }
    }

    private func transfer(
        _ ranges: some Collection<AddressRange>, _ buffer: UnsafeMutableRawBufferPointer,
        bulk: (UnsafePointer<iovec>, UnsafePointer<iovec>, UInt) -> Int,
        single: (UInt64, UnsafeMutableRawPointer, Int) -> Int
    ) throws(KernelError) -> Bool {
        guard var position = buffer.baseAddress else { return true }
        var remote = [iovec]()
        remote.reserveCapacity(min(ranges.count, Self.vectorLimit))
        var next = ranges.startIndex
        while next != ranges.endIndex {
            remote.removeAll(keepingCapacity: true)
            var bytes = 0
            while next != ranges.endIndex, remote.count < Self.vectorLimit, bytes < 64 << 20 {
                let range = ranges[next]
                remote.append(
                    iovec(iov_base: UnsafeMutableRawPointer(bitPattern: UInt(range.lowerBound)), iov_len: range.count))
                bytes += range.count
                next = ranges.index(after: next)
            }
            var local = iovec(iov_base: position, iov_len: bytes)
            var done = bulk(&local, remote, UInt(remote.count))
            if done != bytes {
                // A partial transfer stops at an area that forbids it: go on range by range, by force.
                if done < 0 && done != -Int(EFAULT) { try check(done, "transferring memory of pid \(pid)") }
                done = 0
                for vector in remote {
                    var offset = 0
                    while offset < vector.iov_len {
                        let address = UInt64(UInt(bitPattern: vector.iov_base)) + UInt64(offset)
                        let n = single(address, position + done + offset, vector.iov_len - offset)
                        if n == -Int(EIO) || n == -Int(EFAULT) || n == 0 { return false }
                        try check(n, "transferring memory of pid \(pid) at 0x\(String(address, radix: 16))")
                        offset += n
                    }
                    done += vector.iov_len
                }
            }
            position += bytes
        }
        return true
    }

    /// Writes a few bytes at an address, by force.
    public func poke(_ bytes: [UInt8], at address: UInt64) throws(KernelError) {
        let written = bytes.withUnsafeBytes { clx_pwrite(memory.number, $0.baseAddress, $0.count, address) }
        try check(written, "writing memory of pid \(pid) at 0x\(String(address, radix: 16))")
    }

    /// Reads a few bytes at an address, by force.
    public func peek(_ count: Int, at address: UInt64) throws(KernelError) -> [UInt8] {
        var n = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            n = clx_pread(memory.number, buffer.baseAddress, count, address)
            initialized = max(0, n)
        }
        try check(n, "reading memory of pid \(pid) at 0x\(String(address, radix: 16))")
        return bytes
    }
}
