// What vehicles and the roadside service say to each other; Workloads/vehicular.c has the same as structs.

/// Where a vehicle is and goes.
struct VehicleState: Equatable, Sendable {
    /// Centimetres.
    var x: Int32
    var y: Int32
    /// Centimetres a second.
    var speed: UInt32
    /// 1/100 degree, from the x axis towards the y axis.
    var heading: UInt32
}

/// A vehicle that will come too near.
struct CollisionWarning: Equatable, Sendable {
    /// nil: there is none.
    var other: UInt32?
    /// Milliseconds until it is nearest.
    var after: UInt32 = 0

    static let none = CollisionWarning(other: nil)
    init(other: UInt32?, after: UInt32 = 0) { (self.other, self.after) = (other, after) }
    /// As a message has it.
    init(_ other: UInt32, _ after: UInt32) { self.init(other: other == .max ? nil : other, after: after) }
}

/// What is known of a report, at the client.
struct VehicleReport: Sendable {
    var vehicle: UInt32
    /// From 1, of each vehicle.
    var sequence: UInt32
    var state: VehicleState
    /// When it was due, sent (the report carries that) and answered.
    var request: ProbeRequest
    /// Its place among all reports that the service has kept, from 1; 0: not acknowledged.
    var order: UInt64 = 0
    var warning = CollisionWarning.none

    /// As it is sent.
    var message: ServiceMessage {
        var result = ServiceMessage(kind: VehicularMessage.report)
        result.append(vehicle)
        result.append(sequence)
        result.append(request.sent)
        result.append(state.x)
        result.append(state.y)
        result.append(state.speed)
        result.append(state.heading)
        return result
    }
}

enum VehicularMessage {
    static let (report, acknowledgement, check, log, tracks) = (UInt16(1), UInt16(2), UInt16(3), UInt16(5), UInt16(6))
}

/// The service's answer to a report.
struct Acknowledgement {
    static let size = 48
    /// It stands in the track and in the log; otherwise a newer one of the vehicle did before.
    var kept: Bool
    var vehicle: UInt32
    var sequence: UInt32
    var order: UInt64
    var warning: CollisionWarning

    /// nil: this is none.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.size, bytes.integer(4, as: UInt16.self) == VehicularMessage.acknowledgement else {
            return nil
        }
        (vehicle, sequence, order) = (bytes.integer(8), bytes.integer(12), bytes.integer(16))
        kept = bytes.integer(32, as: UInt32.self) == 1
        warning = CollisionWarning(bytes.integer(36), bytes.integer(40))
    }
}

/// A report as the service keeps it, in a track or in the log.
struct KeptReport: Equatable, Sendable {
    static let size = 64
    var order: UInt64
    var time: Int64
    var vehicle: UInt32
    var sequence: UInt32
    var state: VehicleState
    var warning: CollisionWarning
    /// Its checksum is right.
    var whole: Bool

    init(_ bytes: UnsafeRawBufferPointer) {
        (order, time) = (bytes.integer(0), bytes.integer(8))
        (vehicle, sequence) = (bytes.integer(24), bytes.integer(28))
        state = VehicleState(
            x: bytes.integer(32), y: bytes.integer(36), speed: bytes.integer(40), heading: bytes.integer(44))
        warning = CollisionWarning(bytes.integer(48), bytes.integer(52))
        var check: UInt64 = 1
        for word in 0..<7 { check = serviceMix(check ^ bytes.integer(word * 8, as: UInt64.self)) }
        whole = bytes.integer(56, as: UInt64.self) == check
    }

    /// Records one after the other; a rest that is none counts as a record that is not whole.
    static func list(_ bytes: [UInt8]) -> [KeptReport] {
        let padded = bytes + [UInt8](repeating: 0, count: (size - bytes.count % size) % size)
        return padded.withUnsafeBytes { all in
            stride(from: 0, to: all.count, by: size).map {
                KeptReport(UnsafeRawBufferPointer(rebasing: all[$0..<$0 + size]))
            }
        }
    }
}

/// What the service says of itself at the end.
struct VehicularState: Codable {
    /// How many it kept.
    var reports: Int
    var superseded: Int
    /// Records of all tracks, and how many of them are not what they ought to be.
    var records: Int
    var wrong: Int
    var gaps: [TickGap]
}

/// `mix` of Workloads/support.h.
func serviceMix(_ value: UInt64) -> UInt64 { ValueGenerator.mix(value &+ 0x9E37_79B9_7F4A_7C15) }
