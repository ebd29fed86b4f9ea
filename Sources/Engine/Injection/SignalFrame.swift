// The signal frame (struct rt_sigframe) through which rt_sigreturn puts a thread back to where it was.
import Glibc

enum SignalFrame {
    /// Bytes of struct ucontext with an eight byte mask, rounded up so that the extended state behind it is aligned.
    private static let contextSize = 320

    /// Bytes a frame with this extended state takes.
    static func size(extendedState: Int) -> Int { contextSize + extendedState + 4 }

    /// Writes a frame to `local`, which the thread sees at `remote` (both aligned to 64 bytes).
    ///
    /// The returned stack pointer is what rt_sigreturn wants. The alternate stack in the frame is invalid on
    /// purpose: the kernel then leaves the thread's own as it is.
    static func write(
        to local: UnsafeMutableRawPointer, remote: UInt64, registers r: user_regs_struct, extendedState: [UInt8],
        mask: UInt64
    ) -> UInt64 {
        local.initializeMemory(as: UInt8.self, repeating: 0, count: contextSize)
        local.storeBytes(of: 0b111, as: UInt64.self)  // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
        local.storeBytes(of: 0x4321, toByteOffset: 24, as: UInt32.self)  // ss_flags: invalid
        let words: [UInt64] = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx,
            r.rsp,
            r.rip, r.eflags, (r.cs & 0xffff) | (r.ss & 0xffff) << 48,
        ]
        for (i, word) in words.enumerated() { local.storeBytes(of: word, toByteOffset: 40 + i * 8, as: UInt64.self) }
        let state = contextSize
        local.storeBytes(of: remote + UInt64(state), toByteOffset: 40 + 23 * 8, as: UInt64.self)  // fpstate
        local.storeBytes(of: mask, toByteOffset: 40 + 256, as: UInt64.self)

        // The kernel marks its own frames in the bytes that FXSAVE leaves to software (struct _fpx_sw_bytes).
        (local + state).copyMemory(from: extendedState, byteCount: extendedState.count)
        let features = extendedState.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 464, as: UInt64.self) }
        let software = local + state + 464
        software.storeBytes(of: 0x4650_5853, as: UInt32.self)
        software.storeBytes(of: UInt32(extendedState.count + 4), toByteOffset: 4, as: UInt32.self)
        software.storeBytes(of: features, toByteOffset: 8, as: UInt64.self)
        software.storeBytes(of: UInt32(extendedState.count), toByteOffset: 16, as: UInt32.self)
        (local + state + extendedState.count).storeBytes(of: 0x4650_5845, as: UInt32.self)
        return remote
    }
}
