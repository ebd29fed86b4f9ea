// What the frame service must have shown and kept, given the poses that it applied.

/// Judges overlays and map by what the device knows.
struct AROracle {
    var memory: UInt64
    /// Bytes of an overlay.
    var overlay: Int
    var transport: Transport
    /// In the order in which their poses were sent.
    var frames: [ARFrame]
    /// The frames whose poses the service applied, in order; they count from 1.
    var applied: [UInt32]
    var state: ARState
    /// Why the connection ended; nil: it did not.
    var closed: String?
    var superseded = 0
    var strange = 0

    func verdicts() -> [Verdict] {
        var map = WorldMap(memory: memory)
        var (wrong, disorder) = (0, 0)
        var last: UInt32 = 0
        for number in applied {
            if number <= last { disorder += 1 }
            last = number
            guard number > 0, number <= frames.count else {
                disorder += 1
                continue
            }
            let frame = frames[Int(number) - 1]
            map.apply(frame.pose, frame: number)
            guard frame.request.answered > 0 else { continue }
            if frame.applied != UInt64(map.applied) || frame.digest != map.digest
                || frame.checksum != map.overlay(words: overlay / 8)
            {
                wrong += 1
            }
        }
        let known = Set(applied)
        let shown = frames.indices.filter { frames[$0].request.answered > 0 }
        let lost = shown.count { !known.contains(UInt32($0 + 1)) }
        let same = state.applied == applied.count && state.digest == map.digest
        var result = [
            Verdict(
                "every overlay right", wrong == 0 && strange == 0,
                "\(shown.count) computed again, \(wrong) wrong"
                    + (strange > 0 ? ", \(strange) answers to no pose" : "")),
            Verdict(
                "no pose lost after its overlay came", lost == 0 && disorder == 0 && same,
                "\(applied.count) applied, \(lost) lost, \(disorder) out of order"
                    + (superseded > 0 ? ", \(superseded) came after a newer one" : "")
                    + (same ? "" : ", the service's own count or digest differs")),
            worldMap(map),
        ]
        if transport == .tcp {
            let unanswered = frames.count - shown.count
            result.append(
                Verdict(
                    "TCP connection never closed", closed == nil && unanswered == 0,
                    closed ?? (unanswered == 0 ? "one throughout" : "\(unanswered) poses without an answer")))
        }
        return result
    }

    private func worldMap(_ map: WorldMap) -> Verdict {
        let cells = state.side == map.side && state.cellsWrong == 0 && state.cellDigest == map.cellDigest
        let frames =
            state.keyFrameRoom == map.keyFrameRoom && state.keyFrames == map.keyFrames && state.keyFramesWrong == 0
            && state.keyFrameDigest == map.keyFrameDigest
        return Verdict(
            "world map exact", cells && frames,
            "\(state.side * state.side) cells and \(min(state.keyFrames, state.keyFrameRoom)) key frames checked, "
                + "\(state.cellsWrong) and \(state.keyFramesWrong) wrong"
                + (cells && frames ? "" : ", \(cells ? "key frames" : "cells") not of the poses applied"))
    }
}
