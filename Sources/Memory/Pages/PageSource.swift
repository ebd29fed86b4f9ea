// Where pages come from and where they go. A page is known by the memory that it belongs to and its address there.
import LinuxKernel

/// One memory of a container: a process's address space, or later an object that several processes map.
public struct MemoryIdentity: Sendable, Hashable {
    public let number: UInt64
    public init(_ number: UInt64) { self.number = number }
    /// The address space of the container's first process.
    public static let firstProcess = MemoryIdentity(0)
}

/// A memory whose pages can be read.
public protocol PageSource {
    /// Reads ranges one after another into `buffer`, which holds exactly all of them.
    ///
    /// - Returns: false if one of them is not there (any more).
    func read(_ ranges: [AddressRange], into buffer: UnsafeMutableRawBufferPointer) throws -> Bool
}

/// A memory whose pages can be written.
public protocol PageSink {
    /// Writes `buffer` over ranges.
    ///
    /// - Returns: false if one of them is not there.
    func write(_ ranges: [AddressRange], from buffer: UnsafeRawBufferPointer) throws -> Bool
    /// Drops the content of ranges.
    func discard(_ ranges: [AddressRange]) throws
    /// Does a page that nobody has written hold something else than zeros?
    func hasContentUnwritten(at page: UInt64) -> Bool
}

extension ProcessMemory: PageSource {}
