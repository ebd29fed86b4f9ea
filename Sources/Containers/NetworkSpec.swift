// A container's own network, as data: what travels with it, and what it is attached to on one host.
import LinuxKernel

/// What the container's network looks like from inside; travels with it.
public struct NetworkSpec: Codable, Sendable, Hashable {
    public var mac: MACAddress
    /// With prefix length: "10.0.0.2/24", "fd00::2/64".
    public var addresses: [String]
    /// Default gateways, at most one for each address family.
    public var gateways: [String]
    public var mtu: Int
    /// Name of the interface in the container.
    public var interface: String

    public init(
        mac: MACAddress, addresses: [String], gateways: [String] = [], mtu: Int = 1500, interface: String = "eth0"
    ) {
        self.mac = mac
        self.addresses = addresses
        self.gateways = gateways
        self.mtu = mtu
        self.interface = interface
    }

    /// What cannot be in it, each in words of its own; empty: nothing.
    public var mistakes: [String] {
        var found: [String] = []
        // What IPv4 and IPv6 want at the least.
        if !(68...65535).contains(mtu) { found.append("an MTU of \(mtu)") }
        if addresses.count > 64 { found.append("\(addresses.count) addresses") }
        for text in addresses where IPPrefix(text) == nil { found.append("\(text), which is no address with a prefix") }
        if gateways.count > 64 { found.append("\(gateways.count) gateways") }
        for text in gateways where IPAddress(text) == nil { found.append("\(text), which is no address") }
        let name = interface.utf8
        if !(1...15).contains(name.count) || name.contains(where: { $0 <= 32 || $0 == 47 || $0 == 127 })
            || [".", ".."].contains(interface)
        {
            found.append("an interface of a name that cannot be")
        }
        return found
    }

    func prefixes() throws(KernelError) -> [IPPrefix] {
        var prefixes = [IPPrefix]()
        for text in addresses {
            guard let prefix = IPPrefix(text) else { throw KernelError("reading address \(text)", .invalid) }
            prefixes.append(prefix)
        }
        return prefixes
    }
}

/// What a container's network is attached to on this host. Written down before it is made, so that whoever comes after
/// a crash can take it away again.
public struct NetworkAttachment: Codable, Sendable, Hashable {
    public var bridge: String
    /// Name of the host's end of the veth pair, a port of the bridge.
    public var port: String
    /// File that the container's network namespace is mounted on.
    public var namespace: String
    /// The port of the bridge by which frames follow a container that leaves, or go to its source before it has come:
    /// it leads to the other host of a move and is set anew for each. Empty: there is no default one, and no move yet.
    public var backhaul: String

    public init(bridge: String, port: String, namespace: String, backhaul: String) {
        self.bridge = bridge
        self.port = port
        self.namespace = namespace
        self.backhaul = backhaul
    }

    /// The attachment of a container of this name on a host that keeps its state in `folder`: names only, nothing is
    /// made. The same name always gives the same attachment.
    public init(container: String, bridge: String, backhaul: String, folder: String) {
        self.init(
            bridge: bridge, port: NetworkAttachment.portName(container, on: folder),
            namespace: "\(folder)/\(container).netns",
            backhaul: backhaul)
    }

    /// At most 15 characters: the beginning of the name for people, a hash of all of it and of the host's
    /// folder against collisions: several agents may share a network namespace.
    static func portName(_ container: String, on folder: String) -> String {
        let hash = FNV1a.hash32((container + "\n" + folder).utf8)
        let plain = container.unicodeScalars.filter {
            $0.isASCII && ($0.properties.isAlphabetic || $0.value < 58) && $0.value > 47
        }
        let text = String(hash, radix: 16)
        return "v" + String(String.UnicodeScalarView(plain.prefix(6)))
            + String(repeating: "0", count: 8 - text.count) + text
    }
}
