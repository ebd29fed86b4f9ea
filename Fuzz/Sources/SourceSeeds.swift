// Scripts of destinations from which the fuzzer starts: honest ones by every technique, and what goes wrong at each
// state.
import Foundation
import SwiftProtobuf

@testable import Engine
@testable import Migration

extension Sources {
    /// An input's first byte: a technique, and what else a plan chooses (`plan`).
    private enum Choice {
        static let cold: UInt8 = 0, preCopy: UInt8 = 1, migrror: UInt8 = 2, faults: UInt8 = 3
        static let atTrigger: UInt8 = 4, freezeLimit: UInt8 = 8, keepsDestination: UInt8 = 16
    }

    static func seeds() throws -> [[UInt8]] { try honest() + broken() + hostile() + doubtful() }

    // ---- What an honest destination says ---------------------------------------------------------------------

    private static func accepted(_ boot: String = "here") throws -> [UInt8] {
        try Frames.make(
            .accepted,
            WireAccepted.with { ($0.host, $0.boot, $0.address, $0.identity) = ("b", boot, "127.0.0.1:7700", "b-1") })
    }
    /// The files of a tree that it needs, by their numbers, and that they are in place.
    private static func files(_ needs: [UInt32] = [], end: UInt8 = 1) -> [UInt8] {
        let numbers = needs.flatMap { need in withUnsafeBytes(of: need) { Array($0) } }
        return Frames.make(.files, Seeds.words([UInt64(numbers.count)]) + numbers) + Frames.make(.files, [end])
    }
    private static func staged() throws -> [UInt8] { try Frames.make(.staged, WireStaged()) }
    private static func muted() throws -> [UInt8] { try Frames.make(.muted, WireMuted()) }
    private static func applied(_ number: UInt64, began: Int64 = 1) throws -> [UInt8] {
        try Frames.make(.passApplied, WirePassApplied.with { ($0.number, $0.began) = (number, began) })
    }
    private static func released(at instant: Int64 = 1_000_000, _ steps: [WireStep] = []) throws -> [UInt8] {
        try Frames.make(.released, WireReleased.with { ($0.at, $0.steps) = (instant, steps) })
    }
    private static let step = WireStep.with { ($0.name, $0.start, $0.duration) = ("step", 1, 2) }
    private static func refused() throws -> [UInt8] {
        try Frames.make(
            .refused, WireRefused.with { ($0.reasons, $0.advice, $0.host) = (["no room"], "make some", "b") })
    }
    private static func abort(cancelled: Bool = false, neverRan: Bool = false) throws -> [UInt8] {
        try Frames.make(
            .abort, WireAbort.with { ($0.reason, $0.cancelled, $0.neverRan) = ("it broke", cancelled, neverRan) })
    }
    private static func verdict(_ state: String, boot: String = "here", knows: Bool = false) throws -> [UInt8] {
        try Frames.make(
            .verdict,
            WireVerdict.with { ($0.state, $0.boot, $0.identity, $0.knowsContainer) = (state, boot, "b-1", knows) })
    }

    /// Up to the copy: the root file system, a container with a stub, its one temporary file system.
    private static func toCopy() throws -> [UInt8] { try accepted() + files([1]) + staged() + files() }
    /// Acknowledges passes until the source has frozen.
    private static let toFreeze = Order.await.bytes(.frozen)
    private static func toPromise() throws -> [UInt8] {
        try toCopy() + toFreeze + muted() + Order.await.bytes(.promise)
    }

    private static func honest() throws -> [[UInt8]] {
        let end = try released([step]), trigger = Order.await.bytes(.passEnd) + Order.trigger.bytes()
        let whole = try toPromise() + end
        let there = try accepted("elsewhere") + Order.await.bytes(.tree) + files() + staged() + files()
        let triggered = try toCopy() + trigger + toFreeze + muted() + end
        return try [Choice.cold, Choice.preCopy, Choice.migrror, Choice.faults].map { [$0] + whole }
            + [Choice.preCopy, Choice.migrror].map { [$0 | Choice.atTrigger] + triggered }
            + [[Choice.cold | Choice.atTrigger] + toCopy() + Order.trigger.bytes() + toFreeze + muted() + end]
            + [Choice.cold, Choice.migrror].map { try [$0] + there + toFreeze + muted() + end }
    }

    // ---- What breaks off -------------------------------------------------------------------------------------

    /// The way to each state, where a script may go on in another way than it should.
    private static func stages() throws -> [[UInt8]] {
        let staged = try accepted() + files() + staged()
        return try [
            [], accepted() + Order.await.bytes(.tree), accepted() + files() + Order.await.bytes(.stage), staged,
            staged + files() + Order.awaitSilently.bytes(.passEnd), toCopy() + toFreeze,
            toCopy() + toFreeze + Order.await.bytes(.handover), toPromise(),
        ]
    }

    private static func broken() throws -> [[UInt8]] {
        let silence = Order.await.bytes(.verdict)
        return try stages().flatMap { stage in
            try [silence, [], refused(), abort(), Order.cancel.bytes() + silence].map { [Choice.preCopy] + stage + $0 }
        } + postponed()
    }

    /// The freeze comes to its limit while the source waits for an answer; the second time it gets one.
    private static func postponed() throws -> [[UInt8]] {
        let again = try Order.await.bytes(.thawed) + Frames.make(.thawed, WireFrozen()) + Order.await.bytes(.stage)
        let end = try toFreeze + muted() + released()
        return try [Choice.cold, Choice.preCopy, Choice.migrror].flatMap { technique in
            let start = try [technique | Choice.freezeLimit] + toCopy() + toFreeze
            return try [
                start + again + staged() + files() + end, start + Order.await.bytes(.thawed) + muted() + again,
                start + again + staged() + files() + toFreeze + Order.await.bytes(.thawed) + again, start + again,
            ]
        }
    }

    // ---- Answers that cannot be ------------------------------------------------------------------------------

    private static func hostile() throws -> [[UInt8]] {
        let edges: [Int64] = [1 << 61, 0, -1, .max]
        let early = try accepted() + files() + staged() + files() + Order.awaitSilently.bytes(.passEnd)
        let ends = try edges.map { try toPromise() + released(at: $0, [step]) }
        let passes = try edges.map { try early + applied(1, began: $0) + toFreeze + muted() + released() }
        let probes = try edges.map { edge in
            let answer = try Frames.make(
                .clockProbe, WireClockProbe.with { ($0.sent, $0.answered, $0.answeredBoottime) = (1, edge, edge) })
            return try accepted("elsewhere") + (0..<18).flatMap { _ in answer } + files() + staged() + files()
                + toFreeze + muted() + released(at: edge)
        }
        let others = try [
            early + applied(2), early + applied(.max), early + applied(0), early + muted(),
            early + Frames.make(.thawed, WireFrozen()), early + applied(1) + applied(1) + applied(1),
            accepted() + accepted(), accepted() + files([2]), accepted() + files([0]), accepted() + files([1, 1, 1]),
            accepted() + files([.max]), accepted() + files(end: 0),
            accepted() + Frames.make(.files, Seeds.words([.max])),
            accepted() + Frames.make(.files, Seeds.words([5])), accepted() + Frames.make(.files, []),
            toPromise() + muted(), toPromise() + released((0..<5000).map { _ in WireStep() }),
            toPromise() + released() + released(), Frames.make(0xb4, [1]), Frames.make(99, []),
            Frames.make(.offer, WireOffer()), Frames.make(.refused, [0x0a, 0xff]),
        ]
        return (ends + passes + probes + others).map { [Choice.preCopy] + $0 }
    }

    // ---- After the promise -----------------------------------------------------------------------------------

    private static func doubtful() throws -> [[UInt8]] {
        let asked = try toPromise() + Order.hangUp.bytes() + Order.await.bytes(.inquiry)
        let verdicts = try ["released", "retired", "aborted", "prepared", "in-doubt", "nonsense", ""].map {
            try verdict($0)
        }
        let anew = try [false, true].map { try verdict("", boot: "another", knows: $0) }
        let ways =
            try verdicts + anew + [
                refused(), Order.hangUp.bytes() + verdict("aborted"),
                verdict("") + Order.hangUp.bytes() + verdict("released"),
                abort(neverRan: true), Frames.make(.released, WireReleased()),
                verdict("aborted") + Order.await.bytes(.retired),
            ]
        return try ways.map { [Choice.cold] + asked + $0 }
            + [abort(neverRan: true), refused(), []].flatMap { end in
                try [Choice.cold, Choice.keepsDestination].map { try [$0] + toPromise() + end }
            }
    }
}
