// Where an edge service is, and single questions to it.
import FoundationEssentials
import Glibc
import LinuxKernel

/// How messages travel.
public enum Transport: String, Codable, Sendable, CaseIterable {
    case udp, tcp
    /// Both: most clients by UDP, every fifth by TCP.
    case mixed

    /// What a service is started with.
    var serviceOptions: [String] { self == .tcp ? [] : ["--datagrams"] }
    /// What a client of several uses.
    func of(client: Int) -> Transport { self == .mixed ? (client % 5 == 4 ? .tcp : .udp) : self }
}

/// Where a service is, and from where it is asked.
struct ServiceEndpoint: Sendable {
    var address: String
    var port: UInt16 = 7000
    /// The client's network namespace; nil: this process's own.
    var namespace: NamedNetwork?

    /// Runs a closure where sockets to this endpoint are opened: on a thread of its own inside the namespace.
    func run<T>(_ body: () throws -> T) throws -> T {
        guard let namespace else { return try OwnThread.run("service-client", body).get() }
        return try namespace.run(body)
    }

    /// A socket that sends there; without delay over TCP.
    func open(_ transport: Transport) throws -> FileDescriptor {
        let type = transport == .tcp ? SOCK_STREAM : SOCK_DGRAM
        let descriptor = FileDescriptor(
            owning: try checkC(socket(AF_INET, Int32(type.rawValue) | O_CLOEXEC, 0), "opening a socket"))
        var on: Int32 = 1
        if transport == .tcp { setsockopt(descriptor.number, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4) }
        var peer = try SocketAddress.ipv4(address, port: port)
        _ = try SocketAddress.with(&peer) {
            try checkC(connect(descriptor.number, $0, $1), "connecting to \(address):\(port)")
        }
        return descriptor
    }

    /// Waits until the service takes connections.
    func waitUntilReady(seconds: Double) throws {
        try run {
            var last = ""
            let ready = waitUntil(seconds: seconds, interval: 10) {
                do {
                    _ = try open(.tcp)
                    return true
                } catch {
                    last = "\(error)"
                    return false
                }
            }
            if !ready { throw TestbedError("the service is not ready after \(Int(seconds)) s: \(last)") }
        }
    }

    /// Asks a question over a connection of its own: the content of the one message that answers it.
    func ask(_ kind: UInt16, seconds: Int = 60) throws -> [UInt8] {
        try run {
            let descriptor = try open(.tcp)
            var limit = timeval(tv_sec: seconds, tv_usec: 0)
            setsockopt(descriptor.number, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            let question = ServiceMessage(kind: kind).bytes
            try checkC(
                send(descriptor.number, question, question.count, Int32(MSG_NOSIGNAL)), "asking \(address):\(port)")
            let head = try receive(ServiceMessage.headerSize, from: descriptor)
            let length = head.withUnsafeBytes { Int($0.integer(0, as: UInt32.self)) }
            return try receive(length - head.count, from: descriptor)
        }
    }

    /// Asks for what is answered in JSON.
    func state<State: Decodable>(_ kind: UInt16) throws -> State {
        let text = try ask(kind)
        do { return try JSONDecoder().decode(State.self, from: Data(text)) } catch {
            throw TestbedError(
                "what the service at \(address):\(port) says is not understood: \(String(decoding: text, as: UTF8.self))"
            )
        }
    }

    private func receive(_ size: Int, from descriptor: FileDescriptor) throws -> [UInt8] {
        guard size >= 0 else { throw TestbedError("the service at \(address):\(port) answered nonsense") }
        return try [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            while count < size {
                let n = recv(descriptor.number, buffer.baseAddress! + count, size - count, 0)
                if n < 0 && errno == EINTR { continue }
                try checkC(n, "reading the answer of \(address):\(port)")
                if n == 0 { throw TestbedError("the service at \(address):\(port) closed the connection") }
                count += n
            }
        }
    }
}
