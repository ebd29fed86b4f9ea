// The stub: the tiny program that the runtime starts in the destination's container, to be turned into the process.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

public enum Stub {
    /// Where the stub is loaded: low, so that it is seldom where a program is.
    private static let address: UInt64 = 0x10000

    /// A static ELF executable of one page that waits for ever.
    public static func executable() -> [UInt8] {
        let code = machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_END)
        let size = UInt64(64 + 56 + code.count)
        var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0] + [UInt8](repeating: 0, count: 8)
        func add<T: FixedWidthInteger>(_ values: T...) {
            for value in values { withUnsafeBytes(of: value.littleEndian) { file += $0 } }
        }
        add(UInt16(2), UInt16(62))  // ET_EXEC, EM_X86_64
        add(UInt32(1))
        add(address + 64 + 56, 64, 0)  // entry, program headers, no sections
        add(UInt32(0))
        add(UInt16(64), 56, 1, 0, 0, 0)
        add(UInt32(1), UInt32(5))  // PT_LOAD, readable and executable
        add(0, address, address, size, size, pageSize)
        return file + code
    }

    // Migrations that arrive at the same time install one after the other.
    private static let installing = Mutex(())

    /// Writes the stub's executable to a path, for the runtime to mount into containers. One that stands there already
    /// stays: a file that is replaced is a deleted one to the containers that are just being made with it.
    public static func install(at path: String) throws(KernelError) {
        let bytes = executable()
        try installing.withLock { (_) throws(KernelError) in
            if let installed = try? SmallFile.read(path), installed == bytes { return }
            let temporary = "\(path).\(getpid())"
            do {
                let file = try FileDescriptor(opening: temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o755)
                try checkC(write(file.number, bytes, bytes.count), "writing \(temporary)")
                try checkC(fchmod(file.number, 0o755), "making \(temporary) executable")
            }
            try checkC(rename(temporary, path), "installing \(path)")
        }
    }
}
