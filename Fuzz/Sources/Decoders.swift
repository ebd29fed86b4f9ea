// The decoders of whatever comes over the wire, and what uses their results without touching a process.

import Foundation
import Glibc

import SwiftProtobuf

@testable import Containers
@testable import Engine
@testable import LinuxKernel
@testable import Memory
@testable import Migration

enum Decoders {
    typealias Decoder = @Sendable (UnsafeRawBufferPointer) throws -> Void

    /// By the first byte of an input.
    static let all: [(name: String, decode: Decoder)] = [
        ("offer", { try take($0) }), ("accepted", { _ = try message($0, WireAccepted.self) }),
        ("refused", { _ = try message($0, WireRefused.self) }), ("abort", { _ = try message($0, WireAbort.self) }),
        ("clock probe", { try probe($0) }), ("tree", { _ = try message($0, WireTree.self) }),
        ("stage", { try stage($0) }), ("staged", { _ = try message($0, WireStaged.self) }),
        ("layout", { try layout($0) }), ("pass end", { _ = try message($0, WirePassEnd.self) }),
        ("pass applied", { _ = try message($0, WirePassApplied.self) }), ("handover", { try handover($0) }),
        ("promise", { try promise($0) }), ("released", { try released($0) }),
        ("inquiry", { _ = try message($0, WireInquiry.self) }), ("verdict", { _ = try message($0, WireVerdict.self) }),
        ("pages", { _ = try PageBatch($0) }), ("discards", { _ = try DiscardFrame($0) }),
        ("tree's entries", { try entries($0) }), ("configuration", { try configuration([UInt8]($0)) }),
        ("address", { _ = PeerAddress(String(decoding: $0, as: UTF8.self)) }),
        ("network", { _ = try JSONDecoder().decode(NetworkSpec.self, from: Data($0)).mistakes }),
        ("plan", { _ = try JSONDecoder().decode(MigrationPlan.self, from: Data($0)).mistakes }),
        ("threads", { try threads($0) }),
    ]

    nonisolated(unsafe) private static var runs = [Int](repeating: 0, count: all.count)
    nonisolated(unsafe) private static var taken = [Int](repeating: 0, count: all.count)

    static let run: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32 = { data, size in
        guard let data, size > 0 else { return 0 }
        let bytes = UnsafeRawBufferPointer(start: data, count: size)
        let index = Int(bytes[0]) % all.count
        runs[index] += 1
        do {
            try all[index].decode(UnsafeRawBufferPointer(rebasing: bytes[1...]))
            taken[index] += 1
        } catch {}
        return 0
    }

    static func finish() {
        print("decoder: executions, of which it took what it got")
        for (index, decoder) in all.enumerated() { print("  \(decoder.name): \(runs[index]), \(taken[index])") }
        print("  all: \(runs.reduce(0, +)), \(taken.reduce(0, +))")
    }

    static func message<M: CheckedMessage>(_ bytes: UnsafeRawBufferPointer, _ type: M.Type = M.self) throws -> Checked<
        M
    > {
        try Checked(decoding: bytes) { weight in
            if weight > SessionBounds.ofOneSession { throw MigrationError.protocolViolation("too much") }
        }
    }

    private static func take(_ bytes: UnsafeRawBufferPointer) throws {
        let offer: Checked<WireOffer> = try message(bytes)
        try configuration([UInt8](offer.config))
        _ = KernelFacts().reasonsAgainst(taking: try JSONDecoder().decode(KernelFacts.self, from: offer.kernel))
    }

    private static func configuration(_ bytes: [UInt8]) throws {
        let config = try ContainerConfig(json: bytes)
        _ = config.excess(over: Allowances(), bundle: "/bundle", networkIsOurs: false)
        _ = (config.obstacles(), config.trees, config.digest, config.seccompFilters)
        _ = config.requirements(runtime: "runc", runtimeVersion: "1.1", bundle: "/bundle")
            .missing(runtime: "runc", runtimeVersion: "1.1")
        let place = ContainerConfig.Placement(root: "/root", networkNamespace: "/net", cgroup: "/c", bundle: "/bundle")
        _ = try config.preparedForDestination(place, stub: "/stub").json()
    }

    private static func probe(_ bytes: UnsafeRawBufferPointer) throws {
        let answer = try message(bytes, WireClockProbe.self)
        let there = Clocks(monotonic: answer.answered, boottime: answer.answeredBoottime)
        _ = Clocks.now() + Clocks.now() - there
    }

    private static func stage(_ bytes: UnsafeRawBufferPointer) throws {
        let stage = try message(bytes, WireStage.self)
        for space in stage.spaces { try use(try CheckedLayout(space.areas)) }
        if stage.hasClocks { _ = (stage.clocks.clocks + Clocks.now()).text }
    }

    private static func layout(_ bytes: UnsafeRawBufferPointer) throws {
        try use(try CheckedLayout(try message(bytes, WireLayout.self).space.areas))
    }

    /// From nothing to the layout, from each half of it to the other, and back.
    private static func use(_ layout: CheckedLayout) throws {
        let all = layout.areas, half = Array(all.prefix(all.count / 2)), rest = Array(all.dropFirst(all.count / 2))
        for (from, to) in [([], all), (half, rest), (rest, all), (all, [])] {
            _ = AddressSpacePlan.batch(for: AddressSpacePlan.plan(from: from, to: to).steps).size
            _ = AddressSpacePlan.mappedAnew(from: from, to: to).bytes
        }
        _ = AddressRanges(all.map(\.range)).pages
    }

    private static func handover(_ bytes: UnsafeRawBufferPointer) throws {
        let handover = try message(bytes, WireHandover.self)
        try use(try CheckedTree(handover.tree))
        if handover.hasClocks { _ = handover.clocks.clocks - (Clocks.now() + Clocks.now()) }
    }

    private static func threads(_ bytes: UnsafeRawBufferPointer) throws {
        var tree = try CheckedTree(Seeds.tree())
        try tree.add(try message(bytes, WireThreads.self).processes)
        try use(tree)
    }

    private static func use(_ checked: CheckedTree) throws {
        let tree = checked.tree
        for process in checked.threads {
            for thread in process.threads { _ = ThreadRestore.batch(thread, boundingSet: .max).size }
        }
        for index in tree.processes.indices { _ = checked.parts(of: index).descriptors.count }
        for case .udp(let socket) in tree.files.compactMap(\.kind) { use(socket.queue, UDPAddress(socket.local)) }
    }

    private static func use(_ queue: DatagramQueue, _ local: UDPAddress) {
        for datagram in queue.datagrams {
            let source = UDPAddress(datagram.source)
            let packet = UDPPacket(
                source: source.host, destination: source.host.count == local.host.count ? local.host : source.host,
                datagram: big(source.port) + big(local.port) + [0, 0, 0, 0] + datagram.content,
                ttl: UInt8(clamping: datagram.ttl), trafficClass: UInt8(clamping: datagram.trafficClass),
                flowLabel: datagram.flowLabel)
            for mtu in [68, 1280, 1500, 65535, 65536] { _ = packet.fragments(mtu: mtu).count }
        }
    }

    private static func promise(_ bytes: UnsafeRawBufferPointer) throws {
        let promise = try message(bytes, WirePromise.self)
        var tree = try CheckedTree(Seeds.tree())
        try tree.add([Seeds.threads()])
        try tree.complete(promise.files)
        try tree.check(promise.signals.mapValues(LateSignals.init))
        try use(tree)
    }

    private static func released(_ bytes: UnsafeRawBufferPointer) throws {
        let released = try message(bytes, WireReleased.self)
        for step in released.steps {
            _ = StepReport(step, side: "destination", frozenAt: monotonicNow(), clockOffset: -released.at)
        }
    }

    private static func entries(_ bytes: UnsafeRawBufferPointer) throws {
        _ = try FileTreeReceiver.entries(decoding: [UInt8](bytes), limits: TreeLimits(), root: "a tree")
    }
}
