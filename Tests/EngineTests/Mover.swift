// Moves connections between the two hosts of a lab, in the order of the handover, and takes the time of each step.
import Containers
import Foundation
import LinuxKernel
import NetworkTestSupport
import SwiftProtobuf

@testable import Engine

/// Asks every millisecond until it is so; false after `seconds`.
func waitUntil(seconds: Double = 2, _ isSo: () throws -> Bool) rethrows -> Bool {
    let deadline = Sockets.now() + UInt64(seconds * 1e9)
    while try !isSo() {
        if Sockets.now() > deadline { return false }
        usleep(1000)
    }
    return true
}

/// The container of a lab on its way from `a` to `b`. The program in it is the test itself.
final class Mover {
    let lab: Lab
    let source: SourceHandover
    let destination: DestinationHandover
    let injector: TCPInjector
    let box: NetworkNamespace
    /// Nanoseconds of each step, in order.
    var times: [(String, UInt64)] = []

    init(_ lab: Lab) throws {
        self.lab = lab
        source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        let neighbours = try lab.a.run { () throws(KernelError) in
            try ContainerNetwork.neighbours(lab.spec, lab.attachment("a"))
        }
        destination = try lab.b.run { () throws(KernelError) in
            try DestinationHandover.prepare(
                DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: neighbours)
        }
        box = try lab.container("b")
        for namespace in [lab.a, lab.b, box, try lab.container("a")] { try lab.steer(namespace) }
        injector = try TCPInjector(in: box)
    }

    func time<T>(_ name: String, _ body: () throws -> T) rethrows -> T {
        let start = Sockets.now()
        let result = try body()
        times.append((name, Sockets.now() - start))
        return result
    }

    /// Moves the connections; they must be at rest on the program's side. Returns them as they are at `b`.
    func move(_ connections: [Int32], blackout: UInt32 = 0, listener: (Int32, Int32)? = nil) throws -> [Int32] {
        let fresh = try connections.map { _ in try Sockets.socket(box) }
        if let (old, new) = listener { try TCPSocket.restoreListener(new, try TCPSocket.captureListener(old)) }
        if let first = connections.first {
            try time("rehearse") {
                try TCPSocket.rehearse(try Sockets.socket(box), local: TCPSocket.address(first, peer: false))
            }
        }
        try time("accept (B)") { try destination.accept() }
        try time("redirect (A)") { try source.redirect() }
        let repairs = try time("repair on") { try connections.map { fd in try TCPSocket.beginRepair(fd) } }
        var images = try time("capture") {
            try zip(connections, repairs).map { try TCPSocket.captureConnection($0, $1) }
        }
        try time("silence (A)") { try source.silence() }
        try time("settle") {
            for (index, fd) in connections.enumerated() { try TCPSocket.settle(fd, repairs[index], &images[index]) }
        }
        usleep(blackout)
        // Over the wire, as bytes.
        images = try images.map { try TCPConnection(serializedBytes: $0.serializedData()) }
        try time("restore") {
            try TCPSocket.restoreConnections(Array(zip(fresh, images)), injector: injector)
        }
        try time("open (B)") { try destination.open() }
        for fd in connections { try TCPSocket.closeInRepair(fd) }
        return fresh
    }

    /// After the move: both hosts clean.
    func finish() throws {
        try lab.a.run { () throws(KernelError) in try source.retire() }
        try lab.b.run { () throws(KernelError) in try destination.finish() }
    }
    func removeAll() throws {
        for (host, name) in [(lab.a, "a"), (lab.b, "b")] {
            try host.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment(name)) }
        }
    }
}

/// An echo server on a thread of its own that can be stopped between two system calls, as ptrace would, and given
/// other descriptors.
final class EchoServer: @unchecked Sendable {
    private let lock = NSCondition()
    private var connections: [(fd: Int32, held: [UInt8])]
    private var stop = false, stopped = false, over = false

    init(_ fds: [Int32]) {
        connections = fds.map { ($0, []) }
        Thread.detachNewThread { [self] in run() }
    }
    func pause() -> [Int32] {
        lock.withLock {
            stop = true
            while !stopped { lock.wait() }
            return connections.map(\.fd)
        }
    }
    func resume(_ fds: [Int32]) {
        lock.withLock {
            for index in fds.indices { connections[index].fd = fds[index] }
            stop = false
            lock.broadcast()
        }
    }
    func end() {
        _ = pause()
        lock.withLock {
            over = true
            stop = false
            lock.broadcast()
        }
    }
    private func run() {
        while true {
            let finished = lock.withLock {
                while stop {
                    stopped = true
                    lock.broadcast()
                    lock.wait()
                }
                stopped = false
                return over
            }
            if finished { return }
            var entries = connections.map {
                pollfd(fd: $0.fd, events: Int16($0.held.isEmpty ? POLLIN : POLLOUT), revents: 0)
            }
            if poll(&entries, nfds_t(entries.count), 1) <= 0 { continue }
            for index in connections.indices where entries[index].revents != 0 {
                if connections[index].held.isEmpty {
                    connections[index].held = Sockets.receive(connections[index].fd)
                } else {
                    let n = Sockets.send(connections[index].fd, connections[index].held)
                    if n > 0 { connections[index].held.removeFirst(n) }
                }
            }
        }
    }
}

/// A client that asks, waits for the answer, and asks again; or one that streams. On a thread of its own.
final class EchoClient: @unchecked Sendable {
    let fd: Int32
    private let lock = NSCondition()
    private var over = false, ended = false
    private(set) var wrong: String?
    private var count = 0
    private(set) var largestGap: UInt64 = 0

    /// `window`: bytes that may be under way; 0 asks for one message of 100 bytes at a time.
    init(_ fd: Int32, window: Int = 0) {
        self.fd = fd
        Thread.detachNewThread { [self] in window == 0 ? ask() : stream(window) }
    }
    private var isOver: Bool { lock.withLock { over } }
    var answers: Int { lock.withLock { count } }
    /// Stops after the last answer.
    func end() {
        lock.withLock {
            over = true
            while !ended { lock.wait() }
        }
    }
    private func done() {
        lock.withLock {
            ended = true; lock.broadcast()
        }
    }

    private func ask() {
        var position = 0, last = Sockets.now()
        while wrong == nil, !isOver {
            guard Sockets.send(fd, Pattern.bytes(position..<position + 100)) == 100 else { wrong = "send"; break }
            if let place = Pattern.check(fd, from: position, count: 100) { wrong = "at \(place), errno \(errno)" }
            position += 100
            lock.withLock { count += 1 }
            let now = Sockets.now()
            largestGap = max(largestGap, now - last)
            last = now
        }
        done()
    }
    private func stream(_ window: Int) {
        var sent = 0, received = 0
        var last = Sockets.now()
        while wrong == nil {
            let stop = isOver
            if stop && received == sent { break }
            if !stop && sent - received < window {
                let n = Sockets.send(fd, Pattern.bytes(sent..<sent + min(16384, window - (sent - received))))
                if n > 0 { sent += n } else if errno != EAGAIN { wrong = "send: errno \(errno)" }
            }
            guard Sockets.readable(fd, within: stop || sent - received >= window ? 3000 : 0) else {
                if Sockets.now() - last > 5_000_000_000 { wrong = "nothing for five seconds" }
                continue
            }
            let data = Sockets.receive(fd)
            if data.isEmpty { wrong = "end of stream" }
            for (offset, byte) in data.enumerated() where byte != Pattern.byte(received + offset) {
                wrong = "byte \(received + offset)"
                break
            }
            received += data.count
            lock.withLock { count += 1 }
            let now = Sockets.now()
            largestGap = max(largestGap, now - last)
            last = now
        }
        done()
    }
}
