// A topology's YAML file. docs/testbed.md describes it.
import Glibc
import LinuxKernel
import Migration

extension Topology {
    /// Reads a topology.
    ///
    /// - Throws: `InputError` with file, line and reason; `TestbedError` for the instance's name.
    public init(file: String, instance: String = Self.defaultInstance) throws {
        let text: String
        do { text = try SmallFile.text(file) } catch {
            throw InputError(file: file, line: nil, reason: "cannot be read: \(error)")
        }
        try self.init(yaml: text, file: file, instance: instance)
    }

    /// - Parameter file: the name to use in errors.
    init(yaml text: String, file: String, instance: String = Self.defaultInstance) throws {
        let root = try YAMLValue.root(text, file: file)
        var reader = TopologyReader()
        let entries = try root.entries(
            known: ["name", "hosts", "access-points", "users", "links", "containers", "ssh-config", "allow"])
        for (key, value) in entries {
            switch key {
            case "name": reader.name = try value.text()
            case "hosts": try reader.readHosts(value)
            case "access-points": try reader.readAccessPoints(value)
            case "users": try reader.readUsers(value)
            case "containers": try reader.readContainerNetwork(value)
            case "ssh-config": try reader.readConfiguration(value)
            case "allow": reader.allowances = try Self.allowances(value)
            default: reader.links = value
            }
        }
        guard !reader.hosts.isEmpty else { throw root.mistake("it names no hosts") }
        if reader.machines.isEmpty {
            for (key, value) in entries where ["containers", "ssh-config"].contains(key) {
                throw value.mistake("belongs to hosts that are real machines, which have an address each")
            }
        } else {
            for (key, value) in entries where ["access-points", "users", "links"].contains(key) {
                throw value.mistake(
                    "the hosts are real machines: their links are left alone, and this machine is the user's device")
            }
            let machines = try reader.resolvedMachines(root)
            try self.init(
                instance: instance, name: reader.name ?? file, machines: machines,
                containerNetwork: reader.containerNetwork ?? "10.78.0")
            allowances = reader.allowances
            return
        }
        try reader.resolve()
        let users = reader.users.isEmpty ? [("ue", nil)] : reader.users.map { ($0.name, $0.accessPoint) }
        try self.init(
            instance: instance, name: reader.name ?? file, hosts: reader.hosts,
            accessPoints: reader.accessPoints.map { ($0.name, $0.host, $0.x, $0.y) },
            users: users.map { ($0.0, $0.1 ?? reader.accessPoints.first?.name) }
        ) { _ in }
        allowances = reader.allowances
        if let links = reader.links { try self.readLinks(links) }
    }

    /// The options `--allow-...` of the agents.
    private static func allowances(_ value: YAMLValue) throws -> [String] {
        let lists = ["hook", "bind", "device", "namespace", "capability"]
        return try value.entries(known: lists + ["kernel-files"]).flatMap { key, value in
            if key == "kernel-files" {
                return try value.choice(["true", "false"], { ["true": true, "false": false][$0] })
                    ? ["--allow-kernel-files"] : []
            }
            return try value.items().flatMap { ["--allow-\(key)", try $0.text()] }
        }
    }
}

/// What a file says, before it is known to fit together.
private struct TopologyReader {
    var name: String?
    var hosts: [String] = []
    var accessPoints: [(name: String, host: String?, x: Double, y: Double)] = []
    var users: [(name: String, accessPoint: String?)] = []
    var links: YAMLValue?
    var allowances: [String]?
    /// By the hosts' names.
    var machines: [String: RemoteMachine] = [:]
    var containerNetwork: String?
    private var sshConfig: String?
    private var names: Set<String> = [Topology.accessName]
    /// Names to look up once all are known: of an access point's host, of a user's access point.
    private var references: [(value: YAMLValue, kind: String)] = []

    mutating func readHosts(_ value: YAMLValue) throws {
        for (name, inner) in try value.named() {
            try check(name, inner.mistake)
            if inner.node.mapping != nil { machines[name] = try machine(inner) }
            hosts.append(name)
        }
        for (name, inner) in try value.named() where !machines.isEmpty && machines[name] == nil {
            throw inner.mistake("\(name) has no address: all hosts are real machines, or none")
        }
        guard (2...16).contains(hosts.count) else { throw value.mistake("from 2 to 16 hosts are expected") }
    }

    private func machine(_ value: YAMLValue) throws -> RemoteMachine? {
        let entries = try value.entries(known: ["address", "ssh", "bridge", "apus"])
        if entries.isEmpty { return nil }
        let given = Dictionary(uniqueKeysWithValues: entries)
        guard let address = given["address"] else { throw value.mistake("a real machine has an address") }
        let text = try address.text()
        guard let peer = PeerAddress(text) else {
            throw address.mistake("\"\(text)\" is no numeric address, as 192.0.2.1 or 192.0.2.1:7700")
        }
        if peer.isLoopback { throw address.mistake("\(text) is this machine: the hosts are others") }
        var machine = RemoteMachine(address: peer, ssh: try given["ssh"]?.text())
        if machine.ssh.hasPrefix("-") { throw value.mistake("\"\(machine.ssh)\" is no destination for ssh") }
        if let bridge = given["bridge"] { machine.bridge = try interface(bridge) }
        if let program = given["apus"] { machine.program = try program.text() }
        return machine
    }

    private func interface(_ value: YAMLValue) throws -> String {
        let text = try value.text()
        guard (1...15).contains(text.utf8.count), text.utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != 47 }) else {
            throw value.mistake("\"\(text)\" cannot be the name of a network interface")
        }
        return text
    }

    /// A /24, of which containers have .10 to .97.
    mutating func readContainerNetwork(_ value: YAMLValue) throws {
        let text = try value.text()
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[3] == "0/24", parts[..<3].allSatisfy({ UInt8($0) != nil }) else {
            throw value.mistake("\"\(text)\" is no network such as 10.78.0.0/24; containers get .10 to .97 of it")
        }
        containerNetwork = parts[..<3].joined(separator: ".")
    }

    /// Beside the topology's file, unless its path is absolute.
    mutating func readConfiguration(_ value: YAMLValue) throws {
        let text = try value.text()
        var folder = value.file.contains("/") ? String(value.file[..<value.file.lastIndex(of: "/")!]) : "."
        if folder.isEmpty { folder = "/" }
        guard let path = realpath(text.hasPrefix("/") ? text : "\(folder)/\(text)", nil) else {
            throw value.mistake("there is no file \(text)")
        }
        defer { free(path) }
        sshConfig = String(cString: path)
    }

    func resolvedMachines(_ root: YAMLValue) throws -> [(name: String, machine: RemoteMachine)] {
        let addresses = machines.values.map(\.address)
        guard Set(addresses).count == addresses.count else { throw root.mistake("hosts: two have the same address") }
        return hosts.map { name in
            var machine = machines[name]!
            machine.sshConfig = sshConfig
            return (name, machine)
        }
    }

    mutating func readAccessPoints(_ value: YAMLValue) throws {
        for (name, inner) in try value.named() {
            try check(name, inner.mistake)
            var point = (name: name, host: String?.none, x: 0.0, y: 0.0)
            for (key, value) in inner.isPlain ? [] : try inner.entries(known: ["host", "x", "y"]) {
                switch key {
                case "host":
                    point.host = try value.text()
                    references.append((value, "host"))
                case "x": point.x = try value.number(-1e6...1e6, "metres")
                default: point.y = try value.number(-1e6...1e6, "metres")
                }
            }
            accessPoints.append(point)
        }
        guard accessPoints.count <= 100 else { throw value.mistake("at most 100 access points are possible") }
    }

    mutating func readUsers(_ value: YAMLValue) throws {
        for (name, inner) in try value.named() {
            try check(name, inner.mistake)
            var user = (name: name, accessPoint: String?.none)
            for (_, value) in inner.isPlain ? [] : try inner.entries(known: ["access-point"]) {
                user.accessPoint = try value.text()
                references.append((value, "access point"))
            }
            users.append(user)
        }
        guard users.count <= 100 else { throw value.mistake("at most 100 users are possible") }
    }

    /// Every name that stands for something else must be one.
    func resolve() throws {
        for (value, kind) in references {
            let known = kind == "host" ? hosts : accessPoints.map(\.name)
            _ = try value.choice(known.isEmpty ? ["no \(kind) at all"] : known) { known.contains($0) ? $0 : nil }
        }
    }

    /// A name has to fit into namespaces, cgroups and paths, and to be the only one.
    private mutating func check(_ name: String, _ mistake: (String) -> InputError) throws {
        guard (1...32).contains(name.utf8.count), name.utf8.allSatisfy(Topology.isPlain), name.first != "-" else {
            throw mistake("\"\(name)\" cannot be a name: letters, digits and hyphens, at most 32")
        }
        guard names.insert(name).inserted else {
            throw mistake(
                name == Topology.accessName
                    ? "\"\(name)\" is the core switch's name" : "\"\(name)\" is the name of something else already")
        }
    }
}

extension YAMLValue {
    /// No list and no mapping.
    fileprivate var isPlain: Bool { node.scalar != nil }

    /// Names in a list, [a, b]; or names with what belongs to each, a: {...}; a name's value may be missing.
    fileprivate func named() throws -> [(name: String, value: YAMLValue)] {
        if node.mapping != nil { return try entries().map { ($0.key, $0.value) } }
        return try items().map { (try $0.text(), $0) }
    }
}
