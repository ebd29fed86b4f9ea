// Inputs that are valid, from which the fuzzer starts.
import Containers
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf

@testable import Engine
@testable import Migration

enum Seeds {
    static func write(to folder: String) throws {
        let all = [("decoders", decoders()), ("sessions", try Sessions.seeds()), ("sources", try Sources.seeds())]
        for (target, inputs) in all {
            try Folder.create("\(folder)/\(target)")
            for (number, input) in inputs.enumerated() {
                try Data(input).write(to: URL(fileURLWithPath: "\(folder)/\(target)/seed-\(number)"))
            }
        }
    }

    private static func decoders() -> [[UInt8]] {
        func seed(_ name: String, _ message: some Message) -> [UInt8] {
            seed(name, (try? message.serializedBytes()) ?? [])
        }
        func seed(_ name: String, _ bytes: [UInt8]) -> [UInt8] {
            [UInt8(Decoders.all.firstIndex { $0.name == name } ?? 0)] + bytes
        }
        let clocks = WireClocks.with { ($0.monotonic, $0.boottime) = (1_000_000_000, 2_000_000_000) }
        return [
            seed("offer", offer()),
            seed("accepted", WireAccepted.with { ($0.host, $0.boot, $0.address) = ("b", "boot", "127.0.0.1:7700") }),
            seed("refused", WireRefused.with { ($0.reasons, $0.host) = (["no room"], "b") }),
            seed("abort", WireAbort.with { ($0.reason, $0.cancelled) = ("no", true) }),
            seed("clock probe", WireClockProbe.with { ($0.sent, $0.answered, $0.answeredBoottime) = (1, 2, 3) }),
            seed("tree", WireTree.with { $0.tree = 1 }),
            seed(
                "stage",
                WireStage.with {
                    ($0.spaces, $0.processes) = ([space(areas())], [outline()])
                    ($0.clocks, $0.neighbours) = (clocks, Data("[]".utf8))
                }),
            seed("staged", WireStaged()),
            seed("layout", WireLayout.with { $0.space = space(areas()) }),
            seed("pass end", WirePassEnd.with { ($0.number, $0.began) = (1, 1) }),
            seed("pass applied", WirePassApplied.with { ($0.number, $0.began) = (1, 1) }),
            seed("handover", WireHandover.with { ($0.tree, $0.clocks) = (tree(), clocks) }),
            seed("promise", promise()),
            seed("released", WireReleased.with { $0.steps = [WireStep.with { ($0.name, $0.start) = ("step", 1) }] }),
            seed("inquiry", inquiry()), seed("verdict", WireVerdict.with { $0.state = "released" }),
            seed("pages", pages()), seed("discards", words([0, 0x1000, 0x3000])),
            seed("tree's entries", FileTreeSender.example()), seed("configuration", config),
            seed("address", Array("[fd00::1]:7700".utf8)),
            seed(
                "network",
                Array(
                    #"{"mac":"02:00:00:00:00:01","addresses":["10.0.0.2/24"],"gateways":[],"mtu":1500,"interface":"eth0"}"#
                        .utf8)),
            seed("plan", plan), seed("threads", WireThreads.with { $0.processes = [threads()] }),
        ]
    }

    static func words(_ words: [UInt64]) -> [UInt8] {
        words.flatMap { word in withUnsafeBytes(of: word) { Array($0) } }
    }
    static func pages() -> [UInt8] {
        words([0, 2, 0x1000, 1 << 1, 0x2000, 1 << 1 | 1]) + [UInt8](repeating: 7, count: 4096)
    }

    /// A container with a world of its own, as any host takes it.
    static let config = Array(
        #"""
        {"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["/p"],"cwd":"/"},
        "mounts":[{"destination":"/tmp","type":"tmpfs","source":"t"}],
        "linux":{"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"mount"},{"type":"network"},{"type":"uts"}],
        "resources":{"devices":[{"allow":false,"access":"rwm"}]}}}
        """#.utf8)
    static let plan = (try? [UInt8](JSONEncoder().encode(MigrationPlan(technique: .cold)))) ?? []

    static func offer(secret: [UInt8] = [UInt8](repeating: 7, count: 32)) -> WireOffer {
        WireOffer.with {
            ($0.protocolVersion, $0.migration, $0.container) = (sessionProtocolVersion, "abc", "web")
            ($0.sourceHost, $0.sourceAddress, $0.pid) = ("a", "127.0.0.1:1", 1)
            ($0.config, $0.plan, $0.secret) = (Data(config), Data(plan), Data(secret))
            ($0.runtime, $0.runtimeVersion, $0.boot) = ("runc", "1.1", "here")
            $0.kernel = (try? JSONEncoder().encode(KernelFacts())) ?? Data()
            $0.mappedFiles = [WireMappedFile.with { ($0.path, $0.size) = ("/p", 1) }]
        }
    }

    static func inquiry(_ migration: String = "abc", secret: UInt8 = 7) -> WireInquiry {
        WireInquiry.with {
            ($0.migration, $0.container, $0.secret) = (migration, "web", Data(repeating: secret, count: 32))
        }
    }

    static func areas() -> [MemoryArea] {
        let kinds: [MemoryArea.Kind] = [.anonymous, .privateFile, .stack, .sharedAnonymous, .vdso]
        return kinds.enumerated().map { index, kind in
            MemoryArea.with {
                ($0.start, $0.end, $0.kind) = (UInt64(index) * 0x4000 + 0x10000, UInt64(index) * 0x4000 + 0x12000, kind)
                ($0.protection, $0.path, $0.advice) = (3, kind == .privateFile ? "/p" : "", 4)
            }
        }
    }

    static func space(_ areas: [MemoryArea]) -> WireSpaceLayout { WireSpaceLayout.with { $0.areas = areas } }
    static func outline() -> WireProcessOutline { WireProcessOutline.with { ($0.pid, $0.threads) = (1, [1]) } }

    static func process() -> ProcessImage {
        ProcessImage.with { process in
            process.pid = 1
            process.settings.workingDirectory = Data("/".utf8)
            process.signals.actions = Data(count: 2048)
        }
    }

    static func threads() -> ProcessThreads {
        ProcessThreads.with { process in
            process.pid = 1
            process.timers.posix = [PosixTimer.with { ($0.clock, $0.signal, $0.remainingNs) = (1, 14, 5) }]
            process.threads = [
                ThreadImage.with {
                    ($0.tid, $0.name, $0.timerSlackNs) = (1, Data("p".utf8), 50_000)
                    ($0.registers, $0.xstate) = (Data(count: MemoryLayout<user_regs_struct>.size), Data(count: 576))
                    ($0.credentials.uid, $0.credentials.gid, $0.credentials.groups) = (
                        [0, 0, 0, 0], [0, 0, 0, 0], [1]
                    )
                }
            ]
        }
    }

    static func tree() -> TreeImage {
        let address = Data([2, 0, 0, 80, 10, 0, 0, 2]) + Data(count: 8)
        return TreeImage.with { tree in
            tree.version = TreeImage.currentVersion
            tree.processes = [process()]
            tree.spaces = [AddressSpace.with { $0.executable = "/p" }]
            tree.files = [
                OpenFile.with { $0.path = PathFile.with { ($0.path, $0.offset) = ("/f", 3) } },
                OpenFile.with { $0.tcp = TCPConnection.with { $0.family = 2 } },
                OpenFile.with {
                    $0.udp = UDPEndpoint.with {
                        ($0.family, $0.local) = (2, address)
                        $0.queue.datagrams = [Datagram.with { ($0.source, $0.content) = (address, Data("hello".utf8)) }]
                    }
                },
                OpenFile.with {
                    $0.pipe = PipeEnd.with { ($0.capacity, $0.content, $0.packets) = (4096, Data("ab".utf8), [1, 1]) }
                },
                OpenFile.with { $0.epoll = EpollSet.with { $0.watches = [EpollSet.Watch.with { $0.descriptor = 3 }] } },
                OpenFile.with { $0.event = EventCounter.with { $0.count = 1 } },
            ]
            tree.tables = [
                DescriptorTableImage.with { table in
                    table.descriptors = tree.files.indices.map { index in
                        Descriptor.with { ($0.number, $0.file) = (Int32(index) + 3, UInt32(index)) }
                    }
                }
            ]
        }
    }

    static func promise() -> WirePromise {
        let address = Data([2, 0, 0, 80, 10, 0, 0, 2]) + Data(count: 8)
        return WirePromise.with {
            $0.files = [
                1: LateState.with {
                    ($0.tcp.family, $0.tcp.local, $0.tcp.remote, $0.tcp.state) = (2, address, address, 1)
                    ($0.tcp.window, $0.tcp.sendQueue, $0.tcp.unsent) = (Data(count: 20), Data("abc".utf8), 1)
                },
                2: LateState.with {
                    $0.datagrams.datagrams = [
                        Datagram.with { ($0.source, $0.content, $0.segment) = (address, Data("abc".utf8), 2) }
                    ]
                },
            ]
        }
    }
}
