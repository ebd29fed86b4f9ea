// What a container has written to its log since the destination was told.
import Foundation
import Glibc
import LinuxKernel

/// Reads a container's log from where it was left.
struct LogTail {
    private let path: String
    private var position: UInt64 = 0
    /// What was read and waits for a handover that is not put off.
    private(set) var unsent = Data()

    init(_ path: String) { self.path = path }

    /// Everything, from the log's beginning: the destination has none of it.
    mutating func whole() throws -> Data {
        (position, unsent) = (0, Data())
        return try read()
    }

    /// Adds what is new to what is unsent.
    mutating func advance() throws { unsent += try read() }

    private mutating func read() throws -> Data {
        let file = try FileDescriptor(opening: path, O_RDONLY)
        var data = Data(), chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let n = try chunk.withUnsafeMutableBytes { try file.read(at: position, into: $0) }
            if n == 0 { return data }
            data += chunk[..<n]
            position += UInt64(n)
        }
    }
}
