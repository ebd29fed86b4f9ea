// What only shows when all open files of a process have been looked at: files that are nothing without each other.
import Glibc
import LinuxKernel

/// Collects the files that belong together, and tells which of them are alone.
struct DescriptorCensus {
    private struct Named {
        let number: Int32
        let pid: Int32
        init(_ probe: DescriptorProbe) { (number, pid) = (probe.number, probe.pid) }
    }
    private struct Ends: Hashable { let local, remote: UDPAddress }

    private var pipes: [UInt64: (read: [Named], write: [Named])] = [:]
    private var connections: [Ends: Named] = [:]
    private var sharedPorts: [UInt16: [Named]] = [:]

    mutating func note(_ probe: DescriptorProbe, _ context: DescriptorContext) throws {
        if context.streams[.init(probe.status)] != nil { return }
        if PipeKind.matches(probe) {
            var ends = pipes[UInt64(probe.status.st_ino)] ?? (read: [], write: [])
            if probe.flags & O_ACCMODE == O_WRONLY {
                ends.write.append(Named(probe))
            } else {
                ends.read.append(Named(probe))
            }
            pipes[UInt64(probe.status.st_ino)] = ends
        } else if TCPConnectionKind.matches(probe) {
            // One that is not connected, or not any more, has an obstacle of its own.
            guard let remote = try? TCPSocket.address(probe.copy.number, peer: true) else { return }
            let local = UDPAddress(try TCPSocket.address(probe.copy.number, peer: false))
            connections[Ends(local: local, remote: UDPAddress(remote))] = Named(probe)
        } else if UDPKind.matches(probe), let port = try UDPKind.sharedPort(probe) {
            sharedPorts[port, default: []].append(Named(probe))
        }
    }

    var obstacles: [Obstacle] { (halfPipes + halfConnections + sharing).sorted { $0.subject < $1.subject } }

    private func obstacle(_ file: Named, _ reason: String) -> Obstacle {
        DescriptorTable.named(file.number, file.pid, "\(reason), not carried yet")
    }

    private var halfPipes: [Obstacle] {
        pipes.values.compactMap { ends in
            let all = ends.read + ends.write
            if ends.read.isEmpty || ends.write.isEmpty {
                return obstacle(all[0], "pipe whose other end is not in the process")
            }
            return all.count == 2 ? nil : obstacle(all.last!, "pipe opened again through /proc")
        }
    }

    /// Connections of the container with itself are made again as pairs. Without its other end, the first thing that
    /// one says at the destination would be answered with a reset.
    private var halfConnections: [Obstacle] {
        connections.compactMap { ends, file in
            guard ends.remote.isLoopback || ends.remote.host == ends.local.host,
                connections[Ends(local: ends.remote, remote: ends.local)] == nil
            else { return nil }
            return obstacle(
                file, "TCP connection with \(ends.remote) in its own container, whose other end is not in the process")
        }
    }

    private var sharing: [Obstacle] {
        sharedPorts.compactMap { port, files in
            guard files.count > 1 else { return nil }
            return obstacle(
                files[0], "UDP socket that shares port \(port) with fd \(files[1].number) (SO_REUSEPORT)")
        }
    }
}

extension UDPAddress: CustomStringConvertible {
    var isLoopback: Bool {
        host.count == 4 ? host[0] == 127 : host.count == 16 && host.dropLast().allSatisfy { $0 == 0 } && host[15] == 1
    }
    var description: String {
        guard let address = IPAddress(host) else { return "?:\(port)" }
        return address.isIPv6 ? "[\(address)]:\(port)" : "\(address):\(port)"
    }
}
