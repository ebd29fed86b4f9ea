// What an AR device and its frame service say to each other; Workloads/ar.c has the same as structs.

/// Where a device is and where it looks.
struct Pose: Equatable, Sendable {
    /// Millimetres.
    var x: Int32
    var y: Int32
    var z: Int32
    /// 1/1000 degree.
    var yaw: Int32
    var pitch: Int32
    var roll: Int32

    var values: [Int32] { [x, y, z, yaw, pitch, roll] }
}

enum ARMessage {
    static let (pose, overlay, check, poses) = (UInt16(1), UInt16(2), UInt16(3), UInt16(5))
}

/// What is known of a frame, at the device.
struct ARFrame: Sendable {
    var pose: Pose
    /// When its pose was due, sent, and the last part of its overlay came.
    var request: ProbeRequest
    /// The parts of the overlay that came, as bits, and the checksum of their words.
    var parts: UInt64 = 0
    var checksum = OverlayChecksum()
    /// How many poses the service had applied with this one, and the digest of all of them.
    var applied: UInt64 = 0
    var digest: UInt64 = 0

    /// As it is sent.
    ///
    /// - Parameter number: from 1.
    func message(number: Int) -> ServiceMessage {
        var result = ServiceMessage(kind: ARMessage.pose)
        result.append(UInt32(number))
        result.append(UInt32(0))
        result.append(request.sent)
        for value in pose.values { result.append(value) }
        return result
    }
}

/// A sum over an overlay's words that depends on each one's place; parts may come in any order.
struct OverlayChecksum: Equatable, Sendable {
    private(set) var value: UInt64 = 0

    mutating func add(_ word: UInt64, at index: Int) {
        // An odd factor: any other word gives another product.
        value &+= (word &+ 1) &* (UInt64(2 * index + 1) &* 0x9E37_79B9_7F4A_7C15)
    }
}

/// A part of an overlay, or the word that there is none.
struct OverlayPart {
    /// Bytes of content in every part but the last.
    static let size = 1360
    private static let header = 48
    var frame: UInt32
    var part: Int
    var parts: Int
    var applied: UInt64
    var digest: UInt64
    /// A newer pose was applied before, so this one was not.
    var superseded: Bool
    private let content: UnsafeRawBufferPointer

    /// nil: this is none. Valid as long as the bytes are.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.header, bytes.integer(4, as: UInt16.self) == ARMessage.overlay else { return nil }
        frame = bytes.integer(8)
        (part, parts) = (Int(bytes.integer(12, as: UInt16.self)), Int(bytes.integer(14, as: UInt16.self)))
        (applied, digest) = (bytes.integer(16), bytes.integer(24))
        superseded = bytes.integer(40, as: UInt32.self) != 1
        content = UnsafeRawBufferPointer(rebasing: bytes[Self.header...])
    }

    func add(to checksum: inout OverlayChecksum) {
        for word in 0..<content.count / 8 {
            checksum.add(content.integer(word * 8), at: part * Self.size / 8 + word)
        }
    }
}

/// What the service says of itself at the end.
struct ARState: Codable {
    var applied: Int
    var superseded: Int
    var digest: UInt64
    /// Cells of the map's side.
    var side: Int
    var cellsWrong: Int
    var cellDigest: UInt64
    /// Made since the start, and how many of them are kept at most.
    var keyFrames: Int
    var keyFrameRoom: Int
    var keyFramesWrong: Int
    var keyFrameDigest: UInt64
    var gaps: [TickGap]
}
