// Which multicast groups a socket is in. The kernel lists the groups of an interface, and tells of one whether a socket
// has joined it.
import CLinux
import Foundation
import LinuxKernel

enum UDPGroups {
    /// A group that this socket of process `pid` has joined, or nil.
    static func joined(_ fd: Int32, pid: Int32, family: Int32) throws(KernelError) -> IPAddress? {
        for (interface, group) in parse4(try SmallFile.text("/proc/\(pid)/net/igmp"))
        where isMember(fd, interface, group) { return group }
        guard family == AF_INET6 else { return nil }
        for (interface, group) in parse6(try igmp6(pid)) where isMember(fd, interface, group) { return group }
        return nil
    }

    /// Where IPv6 is off there is no such file, and no group.
    private static func igmp6(_ pid: Int32) throws(KernelError) -> String {
        do throws(KernelError) {
            return try SmallFile.text("/proc/\(pid)/net/igmp6")
        } catch  where error.errno == .noEntry {
            return ""
        }
    }

    /// "2 eth0 : 1 V3", then "    010000E0 1 0:00000000 0": the address as the processor reads it.
    static func parse4(_ text: String) -> [(interface: UInt32, group: IPAddress)] {
        var found: [(UInt32, IPAddress)] = [], interface: UInt32 = 0
        for line in text.split(separator: "\n").dropFirst() {
            let words = line.split { $0 == " " || $0 == "\t" }
            guard let first = words.first else { continue }
            if line.first != "\t" {
                interface = UInt32(first) ?? 0
            } else if let word = UInt32(first, radix: 16),
                let group = IPAddress(withUnsafeBytes(of: word) { [UInt8]($0) })
            {
                found.append((interface, group))
            }
        }
        return found
    }

    /// "2 eth0 ff020000000000000000000000000001 1 0000000C 0".
    static func parse6(_ text: String) -> [(interface: UInt32, group: IPAddress)] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count > 2, let interface = UInt32(words[0]), words[2].utf8.count == 32 else { return nil }
            let digits = Array(words[2])
            let bytes = (0..<16).compactMap { UInt8(String(digits[2 * $0...2 * $0 + 1]), radix: 16) }
            return IPAddress(bytes).map { (interface, $0) }
        }
    }

    /// MCAST_MSFILTER (48) answers for groups that the socket has joined only.
    private static func isMember(_ fd: Int32, _ interface: UInt32, _ group: IPAddress) -> Bool {
        // struct group_filter: interface, sockaddr_storage at 8, mode at 136, number of sources at 140.
        var filter = [UInt8](repeating: 0, count: 144), size = UInt32(144)
        filter.withUnsafeMutableBytes {
            $0.storeBytes(of: interface, toByteOffset: 0, as: UInt32.self)
            $0.storeBytes(of: UInt16(group.family), toByteOffset: 8, as: UInt16.self)
            let offset = group.isIPv6 ? 16 : 12
            $0[offset..<offset + group.bytes.count].copyBytes(from: group.bytes)
        }
        return clx_getsockopt(fd, Int32(group.isIPv6 ? IPPROTO_IPV6 : IPPROTO_IP), 48, &filter, &size) == 0
    }
}
