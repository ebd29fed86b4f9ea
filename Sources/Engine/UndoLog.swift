// What has to be put right in a source process if its engine dies. Each step is noted before it is taken.

/// A trace that the engine leaves in a live process or its host while it works, and how to remove it.
public enum UndoStep: Codable, Sendable, Equatable {
    /// Code was written over zeros at the end of the vDSO.
    case vdsoPatch(pid: Int32, address: UInt64, length: Int)
    /// A thread may be waiting in that code; these are its registers (struct user_regs_struct) and its signal mask
    /// before.
    case bootstrap(pid: Int32, tid: Int32, registers: [UInt8], mask: UInt64)
    /// The injection area is being mapped, the kernel chooses where; mappings that look like it were here before.
    case mapping(pid: Int32, length: UInt64, existing: [UInt64])
    /// The injection area is mapped.
    case injectionArea(pid: Int32, address: UInt64, length: UInt64)
    /// A userfaultfd may be among its descriptors.
    case userfaultfd(pid: Int32)
    /// The engine may have frozen its cgroup.
    case cgroupFreeze(pid: Int32)
    /// TCP sockets may be in repair mode, UDP sockets have a peek offset; these had SO_REUSEADDR before.
    case socketRepair(pid: Int32, reusing: [Int32])
}

/// Where steps are noted; kept by whoever guards the engine.
public protocol UndoLog: AnyObject {
    func note(_ step: UndoStep) throws
    /// Takes back the newest note of a step that has been undone in order.
    func done(_ step: UndoStep) throws
}

/// An undo log that nobody reads: for trees that die with the engine.
public final class NoUndoLog: UndoLog {
    public init() {}
    public func note(_ step: UndoStep) {}
    public func done(_ step: UndoStep) {}
}
