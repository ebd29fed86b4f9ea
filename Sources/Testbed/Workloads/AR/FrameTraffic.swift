// What an AR device sends, and what it gets to show.
import Glibc
import LinuxKernel

/// A user who walks through the mapped room and looks around, one pose a frame.
final class FrameTraffic: OpenLoopTraffic {
    let transports: [Transport]
    let period: Int64
    private var began: Int64?
    private(set) var frames = ChunkedList<ARFrame>()
    /// Answers that said that a newer pose was applied.
    private(set) var superseded = 0
    /// Answers to nothing that was asked.
    private(set) var strange = 0
    private var answered = 0

    /// - Parameter rate: frames a second.
    init(rate: Double, transport: Transport) {
        transports = [transport.of(client: 0)]
        period = Int64(1e9 / rate)
    }

    var outstanding: (all: Int, overTCP: Int) {
        let all = frames.count - answered
        return (all, transports[0] == .tcp ? all : 0)
    }

    func send(due: Int64, over links: [ServiceLink]) {
        let now = monotonicNow()
        let start = began ?? due
        began = start
        let frame = ARFrame(
            pose: Self.pose(after: Double(now - start) / 1e9), request: ProbeRequest(intended: due, sent: now))
        frames.append(frame)
        links[0].send(frame.message(number: frames.count))
    }

    /// At most 1.8 m/s, within 20 m.
    private static func pose(after seconds: Double) -> Pose {
        Pose(
            x: Int32(10_000 * sin(0.14 * seconds)), y: Int32(10_000 * sin(0.11 * seconds + 1)),
            z: Int32(1_700 + 30 * sin(6 * seconds)), yaw: Int32(60_000 * sin(0.5 * seconds)),
            pitch: Int32(15_000 * sin(0.3 * seconds)), roll: Int32(3_000 * sin(0.7 * seconds)))
    }

    func take(_ message: UnsafeRawBufferPointer, at now: Int64) {
        guard let part = OverlayPart(message), part.frame > 0, part.frame <= frames.count, part.part < 64,
            (1...64).contains(part.parts)
        else {
            strange += 1
            return
        }
        if part.superseded {
            superseded += 1
            return
        }
        take(part, into: &frames[Int(part.frame) - 1], at: now)
    }

    private func take(_ part: OverlayPart, into frame: inout ARFrame, at now: Int64) {
        let bit = UInt64(1) << UInt64(part.part)
        if frame.parts & bit != 0 {
            if part.part == 0 { frame.request.duplicates += 1 }
            return
        }
        frame.parts |= bit
        part.add(to: &frame.checksum)
        if frame.parts == (part.parts == 64 ? .max : (1 << UInt64(part.parts)) - 1) {
            frame.request.answered = now
            (frame.applied, frame.digest) = (part.applied, part.digest)
            answered += 1
        }
    }
}
