// Where the vehicles are: on the streets of a small town, at a steady speed each, back and forth.
import Glibc

/// Four streets each way, 50 m apart. Vehicles keep to the right and turn round where their street ends.
struct StreetGrid {
    private static let (streets, distance, lane) = (4, 5_000.0, 175.0)
    private static let length = Double(streets) * distance

    /// Where a vehicle is after some seconds.
    func state(of vehicle: Int, after seconds: Double) -> VehicleState {
        let random = serviceMix(UInt64(vehicle))
        // 8 to 16 m/s.
        let speed = 800 + Double(random % 800)
        let way = (Double(random >> 20 % 1_000_000) / 1e6 * 2 * Self.length + speed * seconds)
            .truncatingRemainder(dividingBy: 2 * Self.length)
        let forth = way < Self.length
        let along = forth ? way : 2 * Self.length - way
        let street = Double(vehicle / 2 % Self.streets) * Self.distance
        // On the right of one's own direction.
        let alongX = vehicle % 2 == 0
        let across = street + (forth == alongX ? -Self.lane : Self.lane)
        return VehicleState(
            x: Int32(alongX ? along : across), y: Int32(alongX ? across : along), speed: UInt32(speed),
            heading: UInt32((alongX ? 0 : 9_000) + (forth ? 0 : 18_000)))
    }
}
