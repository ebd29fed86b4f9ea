// The frame service's map as its device can know it: not the content, but what the content follows from.

/// Follows the poses that the service applied; Workloads/ar.c says what the map is.
struct WorldMap {
    private static let (points, cellSize, around, keyFrameEvery) = (508, 500, 9, 10)

    let side: Int
    let keyFrameRoom: Int
    private(set) var applied = 0
    /// Of all poses.
    private(set) var digest: UInt64 = 0
    private(set) var keyFrames = 0
    private var generations: [UInt64]
    /// The digest at which each key frame was made, by its place.
    private var keyFrameStates: [UInt64]
    /// The cells that the last pose refined.
    private var touched: [Int] = []

    /// - Parameter memory: what the map grows to, bytes.
    init(memory: UInt64) {
        side = Int(Double(memory / 2 / 4096).squareRoot())
        keyFrameRoom = Int(memory / 2 / 32768)
        generations = Array(repeating: 0, count: side * side)
        keyFrameStates = Array(repeating: 0, count: keyFrameRoom)
        keyFrames = keyFrameRoom / 2
    }

    /// The next pose; `frame` counts from 1.
    mutating func apply(_ pose: Pose, frame: UInt32) {
        digest = serviceMix(digest ^ UInt64(frame))
        for value in pose.values { digest = serviceMix(digest ^ UInt64(UInt32(bitPattern: value))) }
        applied += 1
        touched = (0..<Self.around).map {
            wrapped(pose.y, $0 / 3 - 1) * side + wrapped(pose.x, $0 % 3 - 1)
        }
        for cell in touched { generations[cell] += 1 }
        if applied % Self.keyFrameEvery == 0 {
            keyFrameStates[keyFrames % keyFrameRoom] = digest
            keyFrames += 1
        }
    }

    private func wrapped(_ millimetres: Int32, _ offset: Int) -> Int {
        let place = Int(millimetres)
        let cell = (place < 0 ? place - Self.cellSize + 1 : place) / Self.cellSize + offset
        return (cell % side + side) % side
    }

    /// What the last pose's overlay of so many words must add up to.
    func overlay(words: Int) -> OverlayChecksum {
        // A point was last refined in the newest generation of its turn, if there was one yet.
        let bases = touched.map { cell in
            (0..<8).map { turn -> UInt64 in
                let generation = generations[cell]
                let since = (generation &- UInt64(turn)) % 8
                return serviceMix(UInt64(cell) << 20 ^ (generation >= since ? generation - since : 0))
            }
        }
        var result = OverlayChecksum()
        for index in 0..<words {
            let point = index * 11 % Self.points
            let value = serviceMix(bases[index % Self.around][point % 8] &+ UInt64(point))
            result.add(serviceMix(digest &+ UInt64(index)) ^ value, at: index)
        }
        return result
    }

    /// The sum of all cells' fingerprints, and of the key frames' that are kept.
    var cellDigest: UInt64 {
        generations.enumerated().reduce(0) { $0 &+ Self.fingerprint($1.offset, $1.element) }
    }
    var keyFrameDigest: UInt64 {
        (max(0, keyFrames - keyFrameRoom)..<keyFrames).reduce(0) {
            $0 &+ Self.fingerprint($1, keyFrameStates[$1 % keyFrameRoom])
        }
    }

    private static func fingerprint(_ number: Int, _ state: UInt64) -> UInt64 {
        serviceMix(serviceMix(UInt64(number)) ^ state)
    }
}
