// What travels in a migration by CRIU: files over one TCP connection through the backhaul.
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// A connection from one host of a testbed to another; this process has both ends.
final class Transfer {
    private let source, destination: FileDescriptor
    private let counter: CountingStream

    /// Bytes that the source has sent.
    var bytes: UInt64 { counter.written }

    init(from source: EdgeHost, to destination: EdgeHost) throws {
        let (address, listener) = try destination.namespace.run { try Self.listen(destination.backhaulAddress) }
        // The kernel completes the connection, so it can be taken afterwards.
        self.source = try source.namespace.run { try address.connect() }
        self.destination = try PeerAddress.accept(on: listener)
        counter = CountingStream(DescriptorStream(self.source))
    }

    /// Beside the agents' own port; several containers may be on their way.
    private static func listen(_ host: String) throws -> (PeerAddress, FileDescriptor) {
        var port = 7790
        while true {
            let address = PeerAddress("\(host):\(port)")!
            do throws(KernelError) { return (address, try address.listen()) } catch {
                guard error.errno == Errno(EADDRINUSE), port < 7890 else { throw error }
                port += 1
            }
        }
    }

    /// Runs both ends, each on a thread of its own; when one fails the other ends too.
    func exchange(
        _ send: (any ByteStream) throws -> Void, _ receive: @escaping (any ByteStream) throws -> Void
    ) throws {
        // SAFETY: the thread has ended before anything here is used again or goes.
        nonisolated(unsafe) let receive = receive
        nonisolated(unsafe) var failure: (any Error)?
        let destination = destination
        let receiver = try OwnThread("criu-receive") {
            do { try receive(DescriptorStream(destination)) } catch {
                failure = error
                shutdown(destination.number, Int32(SHUT_RDWR))
            }
        }
        let result = Result { try send(counter) }
        if case .failure = result { shutdown(source.number, Int32(SHUT_RDWR)) }
        receiver.join()
        // The end that failed first has the reason.
        if let failure { throw failure }
        try result.get()
    }

    /// Sends files under names to `receive`, and returns when they have arrived.
    static func send(_ files: [(name: String, path: String)], over stream: any ByteStream) throws {
        let open = try files.map { file in
            let descriptor = try FileDescriptor(opening: file.path, O_RDONLY)
            var status = stat()
            try checkC(fstat(descriptor.number, &status), "looking at \(file.path)")
            return (descriptor, TransferredFile(name: file.name, size: UInt64(status.st_size)))
        }
        let list = Array(try JSONEncoder().encode(open.map(\.1)))
        try withUnsafeBytes(of: UInt64(list.count).littleEndian) { try stream.write($0) }
        try list.withUnsafeBytes { try stream.write($0) }
        try withBuffer { buffer in
            for (descriptor, file) in open {
                var offset: UInt64 = 0
                while offset < file.size {
                    let part = UnsafeMutableRawBufferPointer(
                        rebasing: buffer[..<min(buffer.count, Int(file.size - offset))])
                    let count = try descriptor.read(at: offset, into: part)
                    guard count > 0 else { throw TestbedError("\(file.name) became shorter while it was sent") }
                    try stream.write(UnsafeRawBufferPointer(rebasing: part[..<count]))
                    offset += UInt64(count)
                }
            }
            try stream.flush()
            try stream.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<1]))
        }
    }

    /// Receives what `send` sends; `path` says where a file goes.
    static func receive(from stream: any ByteStream, _ path: (String) -> String) throws {
        var size: UInt64 = 0
        try withUnsafeMutableBytes(of: &size) { try stream.read(into: $0) }
        var list = [UInt8](repeating: 0, count: Int(UInt64(littleEndian: size)))
        try list.withUnsafeMutableBytes { try stream.read(into: $0) }
        try withBuffer { buffer in
            for file in try JSONDecoder().decode([TransferredFile].self, from: Data(list)) {
                let descriptor = try FileDescriptor(opening: path(file.name), O_WRONLY | O_CREAT | O_TRUNC)
                var left = file.size
                while left > 0 {
                    let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, Int(left))])
                    try stream.read(into: part)
                    try descriptor.write(UnsafeRawBufferPointer(part))
                    left -= UInt64(part.count)
                }
            }
            try stream.write(UnsafeRawBufferPointer(rebasing: buffer[..<1]))
            try stream.flush()
        }
    }

    private static func withBuffer(_ body: (UnsafeMutableRawBufferPointer) throws -> Void) rethrows {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        // The last byte sent is of it, whatever it says.
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
        defer { buffer.deallocate() }
        try body(buffer)
    }
}

private struct TransferredFile: Codable {
    var name: String
    var size: UInt64
}

/// A stream that knows how much was written to it.
private final class CountingStream: ByteStream {
    private let inner: any ByteStream
    private(set) var written: UInt64 = 0
    init(_ inner: any ByteStream) { self.inner = inner }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws { try inner.read(into: buffer) }
    func write(_ bytes: UnsafeRawBufferPointer) throws {
        try inner.write(bytes)
        written += UInt64(bytes.count)
    }
    func flush() throws { try inner.flush() }
}
