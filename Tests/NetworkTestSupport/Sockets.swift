// Sockets in namespaces, for tests.
import Foundation
import LinuxKernel

/// IPv4 sockets by plain calls.
public enum Sockets {
    public static func socket(_ namespace: NetworkNamespace, _ type: Int32 = Int32(SOCK_STREAM.rawValue)) throws
        -> Int32
    {
        try namespace.run { () throws(KernelError) in try checkC(Glibc.socket(AF_INET, type, 0), "socket") }
    }
    static func with<T>(_ host: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, host, &address.sin_addr)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
    public static func listen(_ namespace: NetworkNamespace, _ port: UInt16, backlog: Int32 = 16) throws -> Int32 {
        let fd = try socket(namespace)
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
        try checkC(with("0.0.0.0", port) { bind(fd, $0, $1) }, "bind")
        try checkC(Glibc.listen(fd, backlog), "listen")
        return fd
    }
    public static func bindUDP(_ namespace: NetworkNamespace, _ port: UInt16) throws -> Int32 {
        let fd = try socket(namespace, Int32(SOCK_DGRAM.rawValue))
        try checkC(with("0.0.0.0", port) { bind(fd, $0, $1) }, "bind")
        return fd
    }
    public static func connect(_ namespace: NetworkNamespace, _ host: String, _ port: UInt16) throws -> Int32 {
        let fd = try socket(namespace)
        try checkC(with(host, port) { Glibc.connect(fd, $0, $1) }, "connect")
        return fd
    }
    public static func sendUDP(_ fd: Int32, _ host: String, _ port: UInt16, _ bytes: [UInt8]) throws {
        try checkC(with(host, port) { sendto(fd, bytes, bytes.count, 0, $0, $1) }, "sendto")
    }
    /// A connected pair: client in one namespace, server's accepted socket in another.
    public static func pair(_ client: NetworkNamespace, _ listener: Int32, _ host: String, _ port: UInt16) throws
        -> (client: Int32, server: Int32)
    {
        let fd = try connect(client, host, port)
        return (fd, try checkC(accept(listener, nil, nil), "accept"))
    }
    @discardableResult public static func set(_ fd: Int32, _ level: Int32, _ name: Int32, _ value: Int32) -> Int32 {
        var value = value
        return setsockopt(fd, level, name, &value, 4)
    }
    public static func get(_ fd: Int32, _ level: Int32, _ name: Int32) -> Int32 {
        var value: Int32 = -1, size = socklen_t(4)
        getsockopt(fd, level, name, &value, &size)
        return value
    }
    /// Segments that this end has sent again (tcpi_total_retrans).
    public static func retransmits(_ fd: Int32) -> UInt32 {
        var words = [UInt32](repeating: 0, count: 26), size = socklen_t(104)
        getsockopt(fd, Int32(IPPROTO_TCP), TCP_INFO, &words, &size)
        return words[25]
    }
    /// Waits until there is something to read; false after `ms`.
    public static func readable(_ fd: Int32, within ms: Int32) -> Bool {
        var entry = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, ms) > 0
    }
    /// What is there to be read at once.
    public static func receive(_ fd: Int32, upTo count: Int = 65536) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: count)
        let n = recv(fd, &buffer, count, Int32(MSG_DONTWAIT))
        return n > 0 ? [UInt8](buffer[..<n]) : []
    }
    public static func send(_ fd: Int32, _ bytes: [UInt8]) -> Int {
        Glibc.send(fd, bytes, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
    }
    /// Nanoseconds of CLOCK_MONOTONIC.
    public static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// A byte stream whose every byte follows from its place.
public enum Pattern {
    public static func byte(_ position: Int) -> UInt8 { UInt8(truncatingIfNeeded: position &* 31 &+ position >> 8) }
    public static func bytes(_ range: Range<Int>) -> [UInt8] { range.map(byte) }
    /// Fills a socket until it takes no more; the number of bytes it took.
    public static func fill(_ fd: Int32, from start: Int = 0, most: Int = 1 << 40) -> Int {
        var position = start
        while position - start < most {
            let n = Sockets.send(fd, bytes(position..<min(position + 32768, start + most)))
            if n <= 0 { break }
            position += n
        }
        return position - start
    }
    /// Reads `count` bytes and compares; the place of the first wrong or missing byte, or nil.
    public static func check(_ fd: Int32, from start: Int = 0, count: Int, patience ms: Int32 = 3000) -> Int? {
        var position = start
        while position < start + count {
            guard Sockets.readable(fd, within: ms) else { return position }
            let data = Sockets.receive(fd, upTo: min(65536, start + count - position))
            if data.isEmpty { return position }
            for (offset, byte) in data.enumerated() where byte != Pattern.byte(position + offset) {
                return position + offset
            }
            position += data.count
        }
        return nil
    }
}
