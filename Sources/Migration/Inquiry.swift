// After a crash: asking another host what became of a migration, and answering.
import Glibc
import LinuxKernel

/// Connects to "address:port" (IPv4).
public func connectTo(_ address: String, timeoutMilliseconds: Int32 = 5000) throws -> FileDescriptor {
    let parts = address.split(separator: ":")
    var target = sockaddr_in()
    target.sin_family = sa_family_t(AF_INET)
    guard parts.count == 2, let port = UInt16(parts[1]), inet_pton(AF_INET, String(parts[0]), &target.sin_addr) == 1 else {
        throw MigrationError.disconnected("'\(address)' is no address; give IPV4:PORT")
    }
    target.sin_port = port.bigEndian
    let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let socket = FileDescriptor(owning: try checkC(Glibc.socket(AF_INET, type, 0), "making a socket"))
    let result = withUnsafePointer(to: &target) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(socket.number, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    if result != 0 && errno != EINPROGRESS { throw MigrationError.disconnected("\(address): \(Errno(errno))") }
    var polled = pollfd(fd: socket.number, events: Int16(POLLOUT), revents: 0)
    guard poll(&polled, 1, timeoutMilliseconds) > 0 else { throw MigrationError.disconnected("\(address) does not answer") }
    var failure: Int32 = 0, size = socklen_t(4)
    getsockopt(socket.number, SOL_SOCKET, SO_ERROR, &failure, &size)
    if failure != 0 { throw MigrationError.disconnected("\(address): \(Errno(failure))") }
    return socket
}

enum Inquiry {
    /// What the host at `address` says of a migration; nil: nobody there, or nobody who knows.
    static func ask(_ address: String, migration: String) -> SessionState? {
        guard let socket = try? connectTo(address, timeoutMilliseconds: 300), let connection = try? Connection(socket) else { return nil }
        let deadline = monotonicNow() + 1_000_000_000
        connection.whileWaiting = { if monotonicNow() > deadline { throw MigrationError.disconnected("no answer") } }
        var inquiry = WireInquiry()
        inquiry.migration = migration
        guard (try? connection.send(.inquiry, inquiry)) != nil, let verdict: WireVerdict = try? connection.expect(.verdict) else { return nil }
        return SessionState(rawValue: verdict.state)
    }
}
