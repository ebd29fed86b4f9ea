// Augmented reality as a workload: a device sends a pose each frame and gets an overlay, made of a map that grows.
import LinuxKernel

/// A frame service on the testbed with one device.
final class AR: Workload {
    struct Options {
        /// What the map grows to, bytes; it begins with three quarters.
        var memory: UInt64
        /// Frames a second.
        var rate = 90.0
        var transport = Transport.udp
        /// Milliseconds from motion to photon.
        var deadline = 20.0
        /// Bytes of an overlay.
        var overlay = 16 << 10
    }

    var containers: [String] { [service.name] }
    private let options: Options
    private var service: ServiceContainer
    private var client: OpenLoopClient?
    private let traffic: FrameTraffic

    init(_ options: Options, _ place: WorkloadPlace) {
        self.options = options
        service = ServiceContainer(place.name("ar"), place)
        traffic = FrameTraffic(rate: options.rate, transport: options.transport)
    }

    func start(on host: EdgeHost) async throws {
        try await service.start(
            "ar",
            ["--memory", "\(options.memory)", "--overlay", "\(options.overlay)"] + options.transport.serviceOptions,
            on: host)
        client = try OpenLoopClient(traffic, to: service.endpoint, name: "ar-device")
    }

    func finish(after moves: [Move]) async throws -> Outcome {
        guard let client else { throw TestbedError("\(service.name) was not started") }
        service.moved(by: moves)
        let closed = client.stop()
        self.client = nil
        let oracle = try AROracle.ask(
            service.endpoint, about: traffic, memory: options.memory, overlay: options.overlay, closed: closed)
        let recording = ProbeRecording(oracle.frames.map(\.request), deadline: Int64(options.deadline * 1e6))
        var result = Outcome()
        result.observations = moves.observations(by: recording, and: oracle.state.gaps)
        result.recording = recording
        result.verdicts = oracle.verdicts()
        try await service.remove()
        return result
    }

    func abandon() async {
        _ = client?.stop()
        client = nil
        try? await service.remove()
    }
}

extension AROracle {
    /// Has the service show what it has, after its device has ended.
    static func ask(
        _ endpoint: ServiceEndpoint, about traffic: FrameTraffic, memory: UInt64, overlay: Int, closed: [String]
    ) throws -> Self {
        let applied = try endpoint.ask(ARMessage.poses).withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { bytes.integer($0 * 4, as: UInt32.self) }
        }
        return AROracle(
            memory: memory, overlay: overlay, transport: traffic.transports[0], frames: traffic.frames.all,
            applied: applied, state: try endpoint.state(ARMessage.check), closed: closed.first,
            superseded: traffic.superseded, strange: traffic.strange)
    }
}
