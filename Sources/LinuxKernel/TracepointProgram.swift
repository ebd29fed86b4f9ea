// Small BPF programs that run at a tracepoint, put together from a handful of instructions.
import CLinux
import Glibc

/// A program for a raw tracepoint. Register 1 points to the tracepoint's arguments, eight bytes each, at its start; 10
/// to the end of its stack.
struct TracepointProgram {
    private(set) var instructions: [clx_bpf_instruction] = []

    private mutating func emit(_ code: UInt8, _ to: UInt8, _ from: UInt8 = 0, offset: Int16 = 0, value: Int32 = 0) {
        instructions.append(
            clx_bpf_instruction(code: code, registers: from << 4 | to, offset: offset, value: value))
    }

    /// Loads eight bytes from where a register points to.
    mutating func load(_ to: UInt8, from: UInt8, _ offset: Int16) { emit(0x79, to, from, offset: offset) }
    mutating func store(_ from: UInt8, to: UInt8, _ offset: Int16) { emit(0x7b, to, from, offset: offset) }
    mutating func copy(_ to: UInt8, _ from: UInt8) { emit(0xbf, to, from) }
    mutating func set(_ to: UInt8, _ value: Int32) { emit(0xb7, to, value: value) }
    mutating func add(_ to: UInt8, _ value: Int32) { emit(0x07, to, value: value) }
    mutating func shiftLeft(_ to: UInt8, _ bits: Int32) { emit(0x67, to, value: bits) }
    mutating func shiftRight(_ to: UInt8, _ bits: Int32) { emit(0x77, to, value: bits) }
    mutating func or(_ to: UInt8, _ from: UInt8) { emit(0x4f, to, from) }
    mutating func map(_ to: UInt8, _ map: FileDescriptor) {
        emit(0x18, to, 1, value: map.number)
        emit(0, 0)
    }
    mutating func call(_ function: Int32) { emit(0x85, 0, value: function) }
    /// Ends the program if register 0 is zero, or if it is not.
    mutating func end(ifZero: Bool) {
        emit(ifZero ? 0x55 : 0x15, 0, offset: 2)
        end()
    }
    mutating func end() {
        set(0, 0)
        emit(0x95, 0)
    }

    /// Reads eight bytes of the kernel's memory at a register's address and an offset into register 0, by way of the
    /// stack at `slot`. Registers 1 to 5 are lost.
    mutating func read(_ address: UInt8, _ offset: Int16, slot: Int16) {
        copy(3, address)
        add(3, Int32(offset))
        copy(1, 10)
        add(1, Int32(slot))
        set(2, 8)
        call(113)  // bpf_probe_read_kernel
        load(0, from: 10, slot)
    }

    /// Loads the program and attaches it.
    ///
    /// - Returns: what keeps it attached.
    func attach(to tracepoint: String) throws(KernelError) -> FileDescriptor {
        let program = FileDescriptor(
            owning: try check(
                clx_bpf_load(instructions, UInt32(instructions.count)), "loading a program for tracepoint \(tracepoint)"
            ))
        return FileDescriptor(
            owning: try check(clx_bpf_attach(program.number, tracepoint), "attaching to tracepoint \(tracepoint)"))
    }
}
