// Two hosts, an access network and a user device, as network namespaces of one test.
import CLinux
import Containers
import Foundation
import LinuxKernel

/// `ue` - access bridge - hosts `a` and `b`; the hosts' bridges are joined by a backhaul as well. A container at
/// 10.77.0.2 can be attached to either. All of it goes with the object.
public final class Lab: Sendable {
    public let ue, access, a, b: NetworkNamespace
    public let folder: String
    public let spec: NetworkSpec
    public var address: String { "10.77.0.2" }

    /// - Parameters:
    ///   - ipv6: the container has fd77::2 and the user device fd77::9 besides.
    ///   - ageing: seconds after which bridges forget an address that they have learned.
    public init(ipv6: Bool = false, ageing: Int = 300) throws {
        spec = NetworkSpec(
            mac: MACAddress("02:00:00:00:77:02")!, addresses: ["10.77.0.2/24"] + (ipv6 ? ["fd77::2/64"] : []))
        ue = try .create()
        access = try .create()
        a = try .create()
        b = try .create()
        folder = "/tmp/nt-lab-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for namespace in [a, b, access] { try bridge(namespace, ageing) }
        try join(access, "to-a", a, "up")
        try join(access, "to-b", b, "up")
        try join(a, "bh", b, "bh")
        try access.run { () throws(KernelError) in
            let route = try NetlinkSocket()
            try route.createVeth(
                "to-ue", peer: VethPeer(name: "eth0", mac: MACAddress("02:00:00:00:77:09"), namespace: ue))
            let port = try route.link("to-ue").index
            try route.setMaster(port, try route.link("br").index)
            try route.setUp(port)
        }
        try ue.setSysctl("net/ipv6/conf/all/disable_ipv6", ipv6 ? "0" : "1")
        try ue.run { () throws(KernelError) in
            let route = try NetlinkSocket()
            let link = try route.link("eth0").index
            try route.setUp(link)
            try route.add(IPPrefix("10.77.0.9/24")!, to: link)
            if ipv6 { try route.add(IPPrefix("fd77::9/64")!, to: link) }
        }
        for host in [a, b] {
            try OwnThread.run("lab") {
                try check(clx_setns(host.descriptor.number, 0x4000_0000 /* CLONE_NEWNET */), "entering a host")
                try ContainerNetwork.makeBackhaul("bh", of: "br")
            }.get()
        }
        for namespace in [ue, access, a, b] {
            try steer(namespace)
            let route = try NetlinkSocket(in: namespace)
            let deadline = monotonicNow() + 10_000_000_000
            while try route.links().contains(where: { $0.isUp && !$0.isOperational && $0.name != "lo" }) {
                guard monotonicNow() < deadline else { throw KernelError("waiting for the lab's links", .timedOut) }
                usleep(1000)
            }
        }
    }
    deinit {
        for file in files { try? NetworkNamespace.remove(at: "\(folder)/\(file)") }  // of a test that failed
        try? FileManager.default.removeItem(atPath: folder)
    }

    /// Gives every interface one receiving CPU, or frames overtake each other between the CPUs of a veth pair.
    public func steer(_ namespace: NetworkNamespace) throws {
        try namespace.run { () throws(KernelError) in
            try check(clx_unshare(0x0002_0000), "making a mount namespace")  // CLONE_NEWNS, of this thread only
            try check(clx_mount("", "/", "", UInt(MS_REC | MS_PRIVATE), nil), "making mounts private")
            try check(clx_mount("nt", "/sys", "sysfs", 0, nil), "mounting sysfs")
            for link in try NetlinkSocket().links() where link.kind == "veth" {
                try SmallFile.write("1", to: "/sys/class/net/\(link.name)/queues/rx-0/rps_cpus")
            }
        }
    }

    private func bridge(_ namespace: NetworkNamespace, _ ageing: Int) throws {
        try namespace.setSysctl("net/ipv6/conf/all/disable_ipv6", "1")
        try namespace.setSysctl("net/ipv6/conf/default/disable_ipv6", "1")
        let route = try NetlinkSocket(in: namespace)
        try route.createBridge("br", ageing: ageing)
        try route.setUp(try route.link("br").index)
    }
    private func join(_ x: NetworkNamespace, _ nameX: String, _ y: NetworkNamespace, _ nameY: String) throws {
        let routeX = try NetlinkSocket(in: x), routeY = try NetlinkSocket(in: y)
        try routeX.createVeth(nameX, peer: VethPeer(name: nameY, mac: nil, namespace: y))
        for (route, name) in [(routeX, nameX), (routeY, nameY)] {
            let port = try route.link(name).index
            try route.setMaster(port, try route.link("br").index)
            try route.setUp(port)
        }
    }

    /// The attachment of the container at host "a" or "b".
    public func attachment(_ host: String) -> NetworkAttachment {
        NetworkAttachment(container: "box-\(host)", bridge: "br", backhaul: "bh", folder: folder)
    }
    /// The container's namespace at a host.
    public func container(_ host: String) throws -> NetworkNamespace {
        try NetworkNamespace(opening: attachment(host).namespace)
    }
    /// Names of what lies in the lab's folder.
    public var files: [String] { (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] }

    /// Frames that an interface has sent so far.
    public func framesSent(_ namespace: NetworkNamespace, _ interface: String) throws -> Int {
        let text = try namespace.run { () throws(KernelError) in try SmallFile.text("/proc/thread-self/net/dev") }
        for line in text.split(separator: "\n") {
            let words = line.split(whereSeparator: { " :".contains($0) })
            if words.count > 10, words[0] == interface { return Int(words[10]) ?? -1 }
        }
        return -1
    }

    /// A counter of /proc/net/snmp or netstat in a namespace: "Tcp" "OutRsts".
    public static func counter(_ namespace: NetworkNamespace, _ group: String, _ name: String) throws -> Int {
        let text = try namespace.run { () throws(KernelError) in
            try SmallFile.text("/proc/thread-self/net/snmp") + "\n" + SmallFile.text("/proc/thread-self/net/netstat")
        }
        let lines = text.split(separator: "\n").filter { $0.hasPrefix(group + ":") }.map { $0.split(separator: " ") }
        guard lines.count == 2, let column = lines[0].firstIndex(of: Substring(name)) else { return -1 }
        return Int(lines[1][column]) ?? -1
    }
}
