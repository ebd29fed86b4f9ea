// Where another agent listens for migrations, and plain blocking TCP to get there.
import CLinux
import Glibc
import LinuxKernel

/// A numeric IPv4 or IPv6 address with a port: "10.0.0.1:7700", "[fd00::1]:7700".
public struct PeerAddress: Hashable, Codable, Sendable, CustomStringConvertible {
    public let host: String
    public let port: UInt16

    public static let defaultPort: UInt16 = 7700

    /// Nil unless the text is a numeric address; without a port it gets the default one.
    public init?(_ text: String) {
        var host = Substring(text)
        var port = Self.defaultPort
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            let rest = text[text.index(after: end)...]
            if !rest.isEmpty {
                guard rest.hasPrefix(":"), let number = UInt16(rest.dropFirst()) else { return nil }
                port = number
            }
        } else if text.filter({ $0 == ":" }).count == 1, let colon = text.firstIndex(of: ":") {
            guard let number = UInt16(text[text.index(after: colon)...]) else { return nil }
            host = text[..<colon]
            port = number
        }
        self.host = String(host)
        self.port = port
        var four = in_addr()
        var six = in6_addr()
        guard inet_pton(AF_INET, self.host, &four) == 1 || inet_pton(AF_INET6, self.host, &six) == 1 else { return nil }
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Whether only programs of this machine (or this network namespace) can reach it.
    public var isLoopback: Bool { host.hasPrefix("127.") || host == "::1" }

    public init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard let value = PeerAddress(text) else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "not a numeric address with a port: \(text)"))
        }
        self = value
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }

    /// Connects a blocking socket without Nagle's delay.
    ///
    /// - Parameter timeLimit: after it connecting ends with `.timedOut`: an address that drops packets would keep us for minutes.
    public func connect(timeLimit: Duration = .seconds(5)) throws(KernelError) -> FileDescriptor {
        let socket = try makeSocket()
        // SO_SNDTIMEO bounds connect(2) too; the session sets its own limits afterwards.
        let (seconds, attoseconds) = timeLimit.components
        var limit = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
        try option(socket, SOL_SOCKET, SO_SNDTIMEO, &limit)
        do throws(KernelError) {
            try withAddress { pointer, length throws(KernelError) in
                try checkC(Glibc.connect(socket.number, pointer, length), "connecting to \(self)")
            }
        } catch {
            // What connect(2) says when that time is up.
            if error.errno == Errno(EINPROGRESS) {
                throw KernelError("\(error.operation) (no answer in \(timeLimit))", .timedOut)
            }
            throw error
        }
        limit = timeval()
        try option(socket, SOL_SOCKET, SO_SNDTIMEO, &limit)
        try Self.withoutDelay(socket)
        return socket
    }

    /// Connects to the agent that is said to listen here.
    ///
    /// - Throws: `unreachable`, with what to look at.
    public func connectToAgent(timeLimit: Duration = .seconds(5)) throws(MigrationError) -> FileDescriptor {
        do throws(KernelError) { return try connect(timeLimit: timeLimit) } catch {
            throw MigrationError(
                .unreachable, "\(error)",
                advice: "is an agent running there, listening on \(self)? `apus agent --listen` says where")
        }
    }

    /// A listening socket.
    public func listen() throws(KernelError) -> FileDescriptor {
        let socket = try makeSocket()
        var on: Int32 = 1
        try option(socket, SOL_SOCKET, SO_REUSEADDR, &on)
        try withAddress { pointer, length throws(KernelError) in
            try checkC(bind(socket.number, pointer, length), "binding to \(self)")
        }
        try checkC(Glibc.listen(socket.number, 16), "listening on \(self)")
        return socket
    }

    /// Waits for a connection and takes it, without Nagle's delay.
    public static func accept(on listener: FileDescriptor) throws(KernelError) -> FileDescriptor {
        while true {
            let number = Glibc.accept(listener.number, nil, nil)
            if number < 0 && (errno == EINTR || errno == ECONNABORTED) { continue }
            let socket = FileDescriptor(owning: try checkC(number, "accepting a connection"))
            try check(clx_fcntl(socket.number, F_SETFD, Int(FD_CLOEXEC)), "marking a connection close-on-exec")
            try withoutDelay(socket)
            return socket
        }
    }

    private static func withoutDelay(_ socket: FileDescriptor) throws(KernelError) {
        var on: Int32 = 1
        try checkC(setsockopt(socket.number, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4), "setting TCP_NODELAY")
    }

    private func option<T: BitwiseCopyable>(_ socket: FileDescriptor, _ level: Int32, _ name: Int32, _ value: inout T)
        throws(KernelError)
    {
        // SAFETY: the pointer covers the plain C value, which the call only reads.
        let result = withUnsafeBytes(of: &value) {
            setsockopt(socket.number, level, name, $0.baseAddress, socklen_t($0.count))
        }
        try checkC(result, "setting a socket's option")
    }

    private func makeSocket() throws(KernelError) -> FileDescriptor {
        let family = host.contains(":") ? AF_INET6 : AF_INET
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        return FileDescriptor(owning: try checkC(socket(family, type, 0), "making a socket"))
    }

    private func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) throws(KernelError) -> Void)
        throws(KernelError)
    {
        var storage = sockaddr_storage()
        // SAFETY: sockaddr_storage is large enough and aligned for both families; the pointer is used inside only.
        let length: socklen_t
        if host.contains(":") {
            length = withUnsafeMutablePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { address in
                    address.pointee.sin6_family = sa_family_t(AF_INET6)
                    address.pointee.sin6_port = port.bigEndian
                    inet_pton(AF_INET6, host, &address.pointee.sin6_addr)
                    return socklen_t(MemoryLayout<sockaddr_in6>.size)
                }
            }
        } else {
            length = withUnsafeMutablePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { address in
                    address.pointee.sin_family = sa_family_t(AF_INET)
                    address.pointee.sin_port = port.bigEndian
                    inet_pton(AF_INET, host, &address.pointee.sin_addr)
                    return socklen_t(MemoryLayout<sockaddr_in>.size)
                }
            }
        }
        let result: Result<Void, KernelError> = withUnsafePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                do throws(KernelError) { return .success(try body(pointer, length)) } catch { return .failure(error) }
            }
        }
        try result.get()
    }
}
