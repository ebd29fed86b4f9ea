// Memory for the frames that are on their way through one direction of a link.
import Glibc
import LinuxKernel

/// Slots of two sizes. The one freed last is taken next, so that little memory is in use, and that in the caches; what
/// was never used is not backed by memory.
struct FramePool {
    private struct Slots {
        let size: Int
        let memory: UnsafeMutableRawPointer
        private let free: UnsafeMutablePointer<UInt32>
        /// Free slots below `count` in `free`; those from `fresh` on were never used.
        private var count = 0
        private var fresh = 0
        let capacity: Int

        init(size: Int, capacity: Int) throws {
            (self.size, self.capacity) = (size, capacity)
            memory = try FramePool.map(size * capacity)
            free = try FramePool.map(4 * capacity).assumingMemoryBound(to: UInt32.self)
        }
        mutating func take() -> Int? {
            if count > 0 {
                count -= 1
                return Int(free[count])
            }
            guard fresh < capacity else { return nil }
            fresh += 1
            return fresh - 1
        }
        mutating func give(_ slot: Int) {
            free[count] = UInt32(slot)
            count += 1
        }
    }

    private var large: Slots
    private var small: Slots
    /// Per slot: runs that still need it. Large slots come first.
    private let users: UnsafeMutablePointer<UInt16>
    private let lengths: UnsafeMutablePointer<UInt32>

    /// Room for a frame of 64 KiB with its headers.
    static let largest = 66 << 10
    private static let smallest = 2 << 10

    /// At most 256 MiB of large frames and 256 MiB of small ones.
    init() throws {
        large = try Slots(size: Self.largest, capacity: (256 << 20) / Self.largest)
        small = try Slots(size: Self.smallest, capacity: (256 << 20) / Self.smallest)
        let slots = large.capacity + small.capacity
        users = try Self.map(2 * slots).assumingMemoryBound(to: UInt16.self)
        lengths = try Self.map(4 * slots).assumingMemoryBound(to: UInt32.self)
    }

    /// A slot for any frame; nil: none is free.
    mutating func take() -> Int? { large.take() }

    /// Keeps a frame that was read into a slot until `users` runs of it are released. A small one moves to a small
    /// slot.
    ///
    /// - Returns: where it is now; nil: there is no room, and the slot is free again.
    mutating func keep(_ slot: Int, length: Int, users count: Int) -> Int? {
        var slot = slot
        if length <= Self.smallest {
            guard let other = small.take() else {
                large.give(slot)
                return nil
            }
            let place = other + large.capacity
            address(place).copyMemory(from: address(slot), byteCount: length)
            large.give(slot)
            slot = place
        }
        users[slot] = UInt16(count)
        lengths[slot] = UInt32(length)
        return slot
    }

    /// Gives back a slot that nothing was kept in.
    mutating func giveBack(_ slot: Int) { large.give(slot) }

    mutating func release(_ slot: Int) {
        users[slot] -= 1
        guard users[slot] == 0 else { return }
        if slot < large.capacity { large.give(slot) } else { small.give(slot - large.capacity) }
    }

    func address(_ slot: Int) -> UnsafeMutableRawPointer {
        slot < large.capacity
            ? large.memory + slot * large.size : small.memory + (slot - large.capacity) * small.size
    }
    func frame(_ slot: Int) -> Superframe { Superframe(address(slot), Int(lengths[slot])) }

    /// Memory that the kernel gives on first use; it is never given back, since a lane lives as long as its process.
    static func map(_ size: Int) throws -> UnsafeMutableRawPointer {
        let memory = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let memory, memory != MAP_FAILED else { throw KernelError("reserving \(size) bytes", Errno(errno)) }
        return memory
    }
}
