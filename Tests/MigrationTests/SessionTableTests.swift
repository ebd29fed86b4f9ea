// The session's table of states and frames: what it allows is what docs/protocol.md says, and connections ask it first.
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf
import Testing
@testable import Migration

/// Both ends of a connection on this machine.
func connectedPair() throws -> (source: Connection, destination: Connection, descriptors: [FileDescriptor]) {
    var ends: [Int32] = [-1, -1]
    try checkC(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends), "making a pair of sockets")
    let descriptors = ends.map { FileDescriptor(owning: $0) }
    return (
        try Connection(descriptors[0], as: .source), try Connection(descriptors[1], as: .destination), descriptors
    )
}

private let states: [SessionState?] = [nil] + SessionState.allCases

@Suite(.timeLimit(.minutes(1))) struct SessionTableTests {
    /// The rows of docs/protocol.md: `state | S or D | frames | next state`, below the heading "The table".
    private func documented() throws -> [[String]: String] {
        let text = try String(contentsOfFile: "docs/protocol.md", encoding: .utf8)
        let section = try #require(text.components(separatedBy: "### The table").dropFirst().first)
        var rows: [[String]: String] = [:]
        for line in section.components(separatedBy: "\n## ")[0].split(separator: "\n") where line.hasPrefix("| ") {
            let cells = line.split(separator: "|").map { $0.filter { $0 != "`" }.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 4, cells[0] != "state", !cells[0].hasPrefix("-") else { continue }
            for state in cells[0].components(separatedBy: ", ") {
                for side in cells[1].components(separatedBy: ", ") {
                    for frame in cells[2].components(separatedBy: ", ") {
                        #expect(rows[[state, side, frame]] == nil, "\(state) \(side) \(frame) stands twice")
                        rows[[state, side, frame]] = cells[3] == "the same" ? state : cells[3]
                    }
                }
            }
        }
        return rows
    }

    @Test func theTableIsTheDocumentedOneForEveryStateSideAndFrame() throws {
        var rows = try documented()
        for state in states {
            for side in Side.allCases {
                for frame in FrameKind.allCases {
                    let key = [state?.rawValue ?? "nothing said", side == .source ? "S" : "D", "\(frame)"]
                    let next = SessionTable.next(state, frame, from: side)?.rawValue
                    #expect(next == rows.removeValue(forKey: key), "\(key.joined(separator: " "))")
                }
            }
        }
        #expect(rows.isEmpty, "no such state or frame: \(rows)")
    }

    /// Frames that lead from the beginning to a state, each with its sender.
    private func path(to state: SessionState?) -> [(Side, FrameKind)]? {
        var paths: [SessionState?: [(Side, FrameKind)]] = [nil: []]
        var open: [SessionState?] = [nil]
        while let from = open.first {
            open.removeFirst()
            for side in Side.allCases {
                for frame in FrameKind.allCases {
                    guard let next = SessionTable.next(from, frame, from: side), paths[next] == nil else { continue }
                    paths[next] = paths[from]! + [(side, frame)]
                    open.append(next)
                }
            }
        }
        return paths[state]
    }

    @Test func aFrameOutOfItsStateIsRefusedBeforeItsContentIsRead() throws {
        var refused = 0
        for state in states {
            guard let path = path(to: state) else { continue }
            for side in Side.allCases {
                for frame in FrameKind.allCases where SessionTable.next(state, frame, from: side) == nil {
                    let (source, destination, descriptors) = try connectedPair()
                    for (sender, kind) in path {
                        try (sender == .source ? source : destination).send(
                            kind, UnsafeRawBufferPointer(start: nil, count: 0))
                        #expect(try (sender == .source ? destination : source).receive().kind == kind)
                    }
                    let receiver = side == .source ? destination : source
                    #expect(receiver.state == state)
                    // A header that announces a long payload: nobody waits for it.
                    var header = (UInt32(64 << 10).littleEndian, frame.rawValue.littleEndian)
                    try withUnsafeBytes(of: &header) { try descriptors[side == .source ? 0 : 1].write($0) }
                    let error = #expect(throws: MigrationError.self) { try receiver.receive() }
                    #expect(error?.message.contains("does not keep to the protocol: a \(frame) message") == true)
                    #expect(receiver.state == state)
                    // Nor does this side say it.
                    let sender = side == .source ? source : destination
                    #expect(throws: MigrationError.self) { try sender.send(frame, WireFrozen()) }
                    refused += 1
                }
            }
        }
        #expect(refused > 300)
    }

    @Test func nobodyDecidesByATimeoutOnceTheSourceMayHavePromised() {
        for state in states {
            let before: Set<SessionState?> = [nil, .offered, .accepted, .staged, .copying]
            let patience = SessionTable.patience(state, waitsForTrigger: false)
            #expect((patience != nil) == before.contains(state), "\(String(describing: state))")
        }
    }

    /// A destination that lives and acknowledges nothing.
    @Test func anAnswerIsNotAwaitedForEverThoughSignsOfLifeCome() throws {
        let (source, destination, _) = try connectedPair()
        try source.send(.offer, UnsafeRawBufferPointer(start: nil, count: 0))
        try destination.startBeating()
        #expect(try !source.awaitInput(1))
        source.deadline = monotonicNow() - 1
        let error = #expect(throws: MigrationError.self) { try source.awaitInput(1) }
        #expect(error?.message.contains("took too long") == true)
    }

    @Test func everyStateBeforeThePromiseCanBeLeftByAnAbort() {
        for state: SessionState in [.offered, .accepted, .staged, .copying, .frozen, .prepared] {
            for side in Side.allCases { #expect(SessionTable.next(state, .abort, from: side) == .aborted) }
        }
    }
}
