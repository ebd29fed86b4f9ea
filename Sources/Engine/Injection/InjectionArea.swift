// Memory shared by the engine and a traced process: the blob, and slots for batches of system calls.
import CLinux
import Glibc
import LinuxKernel

/// One shared mapping in a traced process. The first page holds the blob; then come one large slot for the process
/// and small ones for its threads.
final class InjectionArea {
    static let size: UInt64 = 5 << 20
    private static let processSlot = 4096
    /// 3 MiB: room for some 6,000 descriptors; pages that no batch reaches are never there.
    private static let firstThreadSlot = 4096 + (3 << 20)
    /// A batch, and a signal frame with the extended state, which takes 11 KiB on some processors.
    private static let threadSlotSize = 16384
    /// Threads that can be served at the same time.
    static let threadSlots = (Int(size) - firstThreadSlot) / threadSlotSize

    /// Where the process sees it.
    let address: UInt64
    private let local: UnsafeMutableRawPointer

    /// Maps the same memory here that `pid` has at `address` (shared anonymous, executable).
    init(of pid: Int32, at address: UInt64) throws(KernelError) {
        self.address = address
        let path = "/proc/\(pid)/map_files/\(String(address, radix: 16))-\(String(address + Self.size, radix: 16))"
        let file = try FileDescriptor(opening: path, O_RDWR)
        guard
            let memory = mmap(nil, Int(Self.size), PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0),
            memory != MAP_FAILED
        else { throw KernelError("mapping the injection area of pid \(pid)", Errno(Glibc.errno)) }
        local = memory
        let code = Self.blob
        code.withUnsafeBytes { local.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }
    deinit { munmap(local, Int(Self.size)) }

    var range: AddressRange { address..<address + Self.size }

    private static var blob: [UInt8] { machineCode(CLX_CODE_BLOB_START, CLX_CODE_BLOB_END) }

    /// A place for one batch.
    struct Slot {
        let address: UInt64
        let local: UnsafeMutableRawPointer
        let size: Int
    }
    var process: Slot {
        Slot(
            address: address + UInt64(Self.processSlot), local: local + Self.processSlot,
            size: Self.firstThreadSlot - Self.processSlot)
    }
    func thread(_ index: Int) -> Slot {
        let offset = Self.firstThreadSlot + index * Self.threadSlotSize
        return Slot(address: address + UInt64(offset), local: local + offset, size: Self.threadSlotSize)
    }
}

extension InjectionArea {
    /// A batch in the slot from which a thread runs it.
    struct Assignment<Thread> {
        let thread: Thread
        let batch: CallBatch
        let slot: Slot
    }

    /// Runs a batch in each of several threads, as many at the same time as have slots.
    ///
    /// - Parameters:
    ///   - leader: the place in the list of the one thread whose batch may be large; nil: it is not among them.
    ///   - tid: of a thread, for errors.
    ///   - wave: has some threads run their batches, and returns when all have.
    func run<Thread>(
        _ work: [(thread: Thread, batch: CallBatch)], leader: Int?, tid: (Thread) -> Int32,
        wave: ([Assignment<Thread>]) throws -> Void
    ) throws -> [CallResults] {
        var results: [CallResults] = []
        results.reserveCapacity(work.count)
        for first in stride(from: 0, to: work.count, by: Self.threadSlots) {
            let assignments = (first..<min(work.count, first + Self.threadSlots)).map {
                Assignment(
                    thread: work[$0].thread, batch: work[$0].batch, slot: $0 == leader ? process : thread($0 - first))
            }
            try wave(assignments)
            for one in assignments { results.append(try one.batch.results(at: one.slot.local, of: tid(one.thread))) }
        }
        return results
    }
}

extension InjectionArea.Slot {
    /// Puts a batch here that ends in a trap.
    func load(_ batch: CallBatch) throws(KernelError) {
        guard batch.size <= size else {
            throw KernelError("injecting \(batch.count) calls (\(batch.size) bytes, room for \(size))", Errno(E2BIG))
        }
        batch.write(to: local, remote: address, ending: Int(CLX_END_TRAP), frame: 0)
    }

    /// Puts a batch here after which the thread continues by itself where it was, should its tracer die.
    func load(_ batch: CallBatch, returningTo registers: user_regs_struct, _ extendedState: [UInt8], mask: UInt64)
        throws(KernelError)
    {
        let frame = size - (SignalFrame.size(extendedState: extendedState.count) + 63) / 64 * 64
        guard batch.size <= frame else {
            throw KernelError("injecting \(batch.count) calls (\(batch.size) bytes, room for \(size))", Errno(E2BIG))
        }
        let stack = SignalFrame.write(
            to: local + frame, remote: address + UInt64(frame), registers: registers, extendedState: extendedState,
            mask: mask)
        batch.write(to: local, remote: address, ending: Int(CLX_END_RESUME), frame: stack)
    }

    /// Waits until the blob has run the batch (one that does not end in a trap).
    ///
    /// - Returns: false if it has not within so many nanoseconds.
    func isDone(within nanoseconds: Int64) -> Bool {
        let word = UnsafePointer<UInt32>(OpaquePointer(local))
        if clx_load_acquire(word) == 0 { clx_futex_wait(word, 0, nanoseconds) }
        return clx_load_acquire(word) != 0
    }
}

/// The machine code between two symbols of CLinux.
func machineCode(_ start: Int, _ end: Int) -> [UInt8] {
    // SAFETY: both symbols stand in one read-only section of CLinux, in this order.
    Array(UnsafeBufferPointer(start: clx_code(Int32(start)), count: clx_code(Int32(end))! - clx_code(Int32(start))!))
}

extension user_regs_struct {
    /// The same registers, set to run the blob on a slot.
    func running(_ slot: InjectionArea.Slot, blob: UInt64) -> user_regs_struct {
        var registers = self
        registers.rip = blob
        registers.r12 = slot.address
        registers.orig_rax = UInt64.max
        return registers
    }

    /// Where the thread has to go on so that nothing of the stop shows: an interrupted system call starts again.
    ///
    /// `signalPending`: a handler will run before anything else, so a call that reports EINTR was really interrupted.
    func rewound(signalPending: Bool) -> user_regs_struct {
        var registers = self
        let call = Int64(bitPattern: orig_rax), result = Int64(bitPattern: rax)
        guard call >= 0 else { return registers }
        switch result {
        case -512, -513, -514, -516:
            break
        case -Int64(EINTR) where !signalPending && !Self.notRestartable.contains(call):
            break
        default: return registers
        }
        registers.rax = orig_rax
        registers.rip -= 2
        registers.orig_rax = UInt64.max
        return registers
    }

    /// The same, but what the kernel restarts by itself on this host is left to it.
    func rewoundHere(signalPending: Bool) -> user_regs_struct {
        Int64(bitPattern: rax) == -Int64(EINTR) ? rewound(signalPending: signalPending) : self
    }

    /// close and connect have had their effect when they report EINTR.
    private static let notRestartable: Set<Int64> = [3, 42]
}
