// Augmented reality as a workload: a device sends a pose each frame and gets an overlay, made of a map that grows.
import LinuxKernel

/// A frame service with one device.
struct AR: EdgeApplication {
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

    static let name = "ar", clientName = "ar-device"
    private let options: Options
    private let frames: FrameTraffic
    var traffic: any OpenLoopTraffic { frames }
    var deadline: Double { options.deadline }
    var arguments: [String] {
        ["--memory", "\(options.memory)", "--overlay", "\(options.overlay)"] + options.transport.serviceOptions
    }

    init(_ options: Options) {
        self.options = options
        frames = FrameTraffic(rate: options.rate, transport: options.transport)
    }

    func judge(_ endpoint: ServiceEndpoint, closed: [String]) throws -> EdgeJudgement {
        let oracle = try AROracle.ask(
            endpoint, about: frames, memory: options.memory, overlay: options.overlay, closed: closed)
        return EdgeJudgement(
            requests: oracle.frames.map(\.request), gaps: oracle.state.gaps, verdicts: oracle.verdicts())
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
