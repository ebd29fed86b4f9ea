import LinuxKernel
import Testing

@testable import Testbed

struct TopologyFileTests {
    static let city = """
        name: city
        hosts: [edge-a, edge-b, edge-c]
        access-points:
          ap-1: {host: edge-a}
          ap-2: {host: edge-b, x: 1334, y: -5.5}
          far:
        users:
          ue-1: {access-point: ap-2}
          ue-2:
        links:
          backhaul:
            rate: 1gbit
            delay: 1
            except:
              - {between: [edge-c, edge-a], delay: 5}
              - {from: edge-b, to: edge-a, rate: 500mbit}
          access:
            delay: 0.5
            except: [{of: edge-c, down: {loss: 1}}]
          radio: {rate: 200mbit, up: {rate: 50mbit, queue: 60000}, except: [{between: [ue-1, far], delay: 3, jitter: 1}]}
        """

    @Test func stationsHaveNamesAndAddresses() throws {
        let topology = try Topology(yaml: Self.city, file: "city.yaml", instance: "x")
        #expect(topology.name == "city")
        #expect(topology.hosts.map(\.name) == ["x-edge-a", "x-edge-b", "x-edge-c"])
        #expect(topology.hosts.map(\.backhaulAddress) == ["10.77.0.1", "10.77.0.2", "10.77.0.3"])
        #expect(topology.accessPoints.map(\.host) == ["x-edge-a", "x-edge-b", nil])
        #expect(topology.accessPoint("ap-2")?.x == 1334 && topology.accessPoint("x-ap-2")?.y == -5.5)
        #expect(topology.userDevices.map(\.accessPoint) == ["x-ap-2", "x-ap-1"], "without one it is the first")
        #expect(topology.userDevices.map(\.address) == ["10.78.0.100", "10.78.0.101"])
        #expect(topology.userDevice.name == "x-ue-1")
        #expect(
            Set(topology.namespaces.map(\.name))
                == Set("edge-a edge-b edge-c ap-1 ap-2 far ue-1 ue-2 access".split(separator: " ").map { "x-\($0)" }))
    }

    @Test func theDefaultIsTwoHostsAndAUser() throws {
        let topology = try Topology()
        #expect(topology.namespaces.map(\.name) == ["edge-a", "edge-b", "ue", "access"])
        #expect(topology.hosts.map(\.accessAddress) == ["10.78.0.1", "10.78.0.2"])
        #expect(topology.userDeviceAddress == "10.78.0.100" && topology.backhaul == LinkRate("1gbit"))
        #expect(topology.links.count == 4)
        let file = try Topology(yaml: "hosts: [edge-a, edge-b]\nlinks: {backhaul: {rate: 1gbit}}", file: "t")
        #expect(
            file.hosts == topology.hosts && file.userDevices == topology.userDevices && file.links == topology.links)
    }

    /// No interface, no address and no MAC twice, none too long, with as much as there can be.
    @Test func namesAndAddressesDiffer() throws {
        let numbers = 1...100
        let text = """
            hosts: [\((1...16).map { "h\($0)" }.joined(separator: ", "))]
            access-points: [\(numbers.map { "a\($0)" }.joined(separator: ", "))]
            users: [\(numbers.map { "u\($0)" }.joined(separator: ", "))]
            """
        let topology = try Topology(yaml: text, file: "big.yaml")
        let ends = topology.links.flatMap(topology.cables).flatMap { [$0.a, $0.b] }
        #expect(Set(ends.map { "\($0.namespace.name) \($0.interface)" }).count == ends.count)
        #expect(ends.allSatisfy { (1...15).contains($0.interface.utf8.count) })
        #expect(topology.links.count == 16 * 15 / 2 + 16 + 100 * 100)
        let addresses = topology.hosts.map(\.accessAddress) + topology.userDevices.map(\.address)
        #expect(Set(addresses).count == 116 && addresses.allSatisfy { IPAddress($0) != nil })
        // Those from 10 to 97 are the workloads'.
        #expect(addresses.allSatisfy { !(10...97).contains(Int($0.split(separator: ".")[3])!) })
        let macs =
            topology.hosts.flatMap { [$0.accessMAC, $0.bridgeMAC] } + topology.accessPoints.map(\.bridgeMAC)
            + topology.userDevices.map(\.mac)
        #expect(Set(macs).count == macs.count && macs.allSatisfy { MACAddress($0) != nil })
    }

    @Test func linksHaveDefaultsAndExceptions() throws {
        let topology = try Topology(yaml: Self.city, file: "city.yaml", instance: "x")
        func link(_ a: String, _ b: String) throws -> TestbedLink { try #require(topology.link(a, b)) }
        let ab = try link("edge-a", "edge-b"), ac = try link("edge-c", "edge-a")
        #expect(ab.forward.rate == LinkRate("1gbit") && ab.backward.rate == LinkRate("500mbit"))
        #expect(ab.forward.delay == 1 && ab.backward.delay == 1)
        #expect(ac.forward.delay == 5 && ac.backward.delay == 5 && ac.backward.rate == LinkRate("1gbit"))
        let c = try link("edge-c", "access")
        #expect(c.forward.loss == 0 && c.backward.loss == 1 && c.backward.delay == 0.5)
        let radio = try link("ue-2", "ap-1"), far = try link("ue-1", "far")
        #expect(radio.forward.rate == LinkRate("50mbit") && radio.backward.rate == LinkRate("200mbit"))
        #expect(radio.forward.queue == 60000 && radio.backward.queue == nil && radio.forward.isRateOnly)
        #expect(far.forward.delay == 3 && far.forward.jitter == 1 && far.forward.rate == LinkRate("50mbit"))
        #expect(topology.link("ue-1", "edge-a") == nil)
        #expect(ab.isEmulated && radio.isEmulated == false && far.isEmulated)
        #expect(topology.cables(of: radio).map(\.means) == [.shaper])
        // The bridges' ports carry few frames: they are as far apart, without a limit of their own.
        let cables = topology.cables(of: ab)
        #expect(
            cables.map(\.forward.delay) == [1, 1] && cables.map(\.backward.rate) == [LinkRate("500mbit"), .unlimited])
    }

    /// Links are veth pairs unless they have to be more, now or later.
    @Test func emulationCanBeAskedFor() throws {
        let text = "hosts: [a, b]\nlinks:\n  access: {emulated: true, except: [{of: b, emulated: false}]}"
        let topology = try Topology(yaml: text, file: "t.yaml")
        #expect(topology.links.filter(\.isEmulated).map(\.a) == ["a"])
        #expect(Set(topology.links.flatMap(topology.cables).map(\.name)).count == 5)
    }

    @Test func whatAgentsAllowIsSaidOnce() throws {
        let text = "hosts: [edge-a, edge-b]\nallow: {bind: [/srv, /data], hook: [/bin/x], kernel-files: true}\n"
        let topology = try Topology(yaml: text, file: "f", instance: "x")
        let options = [
            "--allow-bind", "/srv", "--allow-bind", "/data", "--allow-hook", "/bin/x", "--allow-kernel-files",
        ]
        #expect(topology.allowances == options)
        #expect(Testbed(topology).agentArguments(topology.hosts[1]).suffix(options.count) == options[...])
        for wrong in ["allow: {all: [x]}", "allow: {kernel-files: x}", "allow: [x]"] {
            #expect(throws: InputError.self, "\(wrong)") {
                try Topology(yaml: "hosts: [edge-a, edge-b]\n\(wrong)\n", file: "f")
            }
        }
    }

    @Test func hostsCanBeMachines() throws {
        let text = """
            hosts:
              a: {address: 192.0.2.1}
              b: {address: "[fd00::1]:7701", ssh: lab-b, bridge: lan, apus: /opt/apus}
            containers: 192.0.2.0/24
            """
        let topology = try Topology(yaml: text, file: "t.yaml", instance: "x")
        #expect(topology.hasMachines && topology.hosts.map(\.name) == ["x-a", "x-b"])
        let a = try #require(topology.hosts[0].machine), b = try #require(topology.hosts[1].machine)
        #expect("\(a.address)" == "192.0.2.1:7700" && a.ssh == "root@192.0.2.1" && a.bridge == "br0")
        #expect("\(b.address)" == "[fd00::1]:7701" && b.ssh == "lab-b" && b.program == "/opt/apus")
        #expect(b.bridge == "lan")
        #expect(topology.links.isEmpty && topology.namespaces.isEmpty && topology.containerNetwork == "192.0.2")
    }

    /// Both ends of a tunnel have to come to the same identifier, different pairs and testbeds to different ones.
    @Test func tunnelsAreToldApart() {
        var seen: Set<UInt32> = []
        for instance in ["default", "evaluate"] {
            for low in 1...15 {
                for high in (low + 1)...16 {
                    let one = Tunnels(instance: instance, number: low),
                        other = Tunnels(instance: instance, number: high)
                    #expect(one.identifier(to: high) == other.identifier(to: low))
                    #expect(seen.insert(one.identifier(to: high)).inserted && one.identifier(to: high) < 1 << 24)
                    #expect(one.port(to: high).utf8.count <= 15 && MACAddress(one.address(to: high)) != nil)
                }
            }
        }
    }

    @Test(arguments: [
        ("", nil, "empty"),
        ("hosts:\n  a: {address: 192.0.2.1}\n  b:", 3, "b has no address: all hosts are real machines, or none"),
        ("hosts:\n  a: {ssh: x}\n  b: {}", 2, "a real machine has an address"),
        ("hosts:\n  a: {address: lab-a}\n  b: {}", 2, "\"lab-a\" is no numeric address"),
        ("hosts:\n  a: {address: 127.0.0.1}\n  b: {}", 2, "127.0.0.1 is this machine"),
        ("hosts:\n  a: {address: 192.0.2.1, ssh: -oX}\n  b: {}", 2, "\"-oX\" is no destination for ssh"),
        ("hosts:\n  a: {address: 192.0.2.1, bridge: a/b}\n  b: {}", 2, "cannot be the name of a network interface"),
        ("hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.1}", 1, "two have the same address"),
        (
            "hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.2}\nlinks: {backhaul: {rate: 1gbit}}", 4,
            "links: the hosts are real machines: their links are left alone"
        ),
        ("hosts: [a, b]\ncontainers: 10.0.0.0/24", 2, "containers: belongs to hosts that are real machines"),
        (
            "hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.2}\nssh-config: no-such-file", 4,
            "there is no file no-such-file"
        ),
        (
            "hosts:\n  a: {address: 192.0.2.1}\n  b: {address: 192.0.2.2}\ncontainers: 10.0.0.0/16", 4,
            "is no network such as"
        ),
        ("hosts: [a, b]\nhost: [a]", 2, "\"host\" is not known here; known: name, hosts"),
        ("name: x", 1, "it names no hosts"),
        ("hosts: [a]", 1, "from 2 to 16 hosts"),
        ("hosts: []", 1, "expected a list"),
        ("hosts:\n- a\n- a", 3, "\"a\" is the name of something else already"),
        ("hosts:\n- a\n- b_c", 3, "\"b_c\" cannot be a name"),
        ("hosts: [a, access]", 1, "the core switch's name"),
        ("hosts: [a, b]\nusers: [a]", 2, "the name of something else already"),
        ("hosts: [a, b]\naccess-points:\n  p: {host: c}", 3, "access-points.p.host: \"c\" is none of a, b"),
        ("hosts: [a, b]\naccess-points:\n  p: {x: east}", 3, "\"east\" is not a number of metres"),
        ("hosts: [a, b]\nusers:\n  u: {access-point: p}", 3, "\"p\" is none of no access point at all"),
        ("hosts: [a, b]\nlinks: {fronthaul: {}}", 2, "known: backhaul, access, radio"),
        ("hosts: [a, b]\nlinks:\n  access: {rate: fast}", 3, "links.access.rate: \"fast\" is not a rate such as"),
        ("hosts: [a, b]\nlinks:\n  access: {delay: 20000}", 3, "\"20000\" is not milliseconds from 0 to 10000"),
        (
            "hosts: [a, b]\nlinks:\n  access: {jitter: 2}", 3,
            "links.access: a jitter of 2 ms: from 0 to the delay, here 0 ms"
        ),
        ("hosts: [a, b]\nlinks:\n  backhaul: {up: {delay: 1}}", 3, "a direction between two hosts is named by"),
        ("hosts: [a, b]\nlinks:\n  access:\n    except: [{delay: 1}]", 4, "which link?"),
        ("hosts: [a, b]\nlinks:\n  access:\n    except: [{of: c}]", 4, "\"c\" is none of a, access, b"),
        (
            "hosts: [a, b]\nlinks:\n  access:\n    except: [{between: [a, b]}]", 4,
            "there is no access link between a and b"
        ),
    ])
    func mistakesHaveAPlaceAndAReason(_ text: String, _ line: Int?, _ reason: String) {
        let error = #expect(throws: InputError.self) { try Topology(yaml: text, file: "t.yaml") }
        #expect(error?.line == line)
        #expect(error?.reason.contains(reason) == true, "\(error?.description ?? "")")
    }

    @Test func shippedOnesAreGood() throws {
        let names = fileNames("Topologies").filter { $0.hasSuffix(".yaml") }
        #expect(names.contains("city.yaml"))
        for name in names { _ = try Topology(file: "Topologies/\(name)") }
    }
}
