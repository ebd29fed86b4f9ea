// Signal handlers and the signals that wait for the process as a whole.
import LinuxKernel

struct SignalActions: ProcessResource {
    private var actions: [CallBatch.DataReference] = []
    private static let size = 32
    /// SIGKILL and SIGSTOP have no action.
    private static let signals = (1...64).filter { $0 != 9 && $0 != 19 }

    mutating func ask(_ context: CaptureContext, _ batch: inout CallBatch) {
        for signal in Self.signals {
            let action = batch.space(Self.size)
            actions.append(action)
            batch.call(
                .rtSigaction, .int(signal), .value(0), .address(action), .value(8),
                doing: "reading the action of signal \(signal)")
        }
    }

    func collect(_ context: CaptureContext, _ answers: CallResults, into image: inout ProcessImage) throws {
        var bytes = [UInt8](repeating: 0, count: 64 * Self.size)
        for (signal, action) in zip(Self.signals, actions) {
            bytes.replaceSubrange((signal - 1) * Self.size..<signal * Self.size, with: answers.bytes(action))
        }
        image.signals.actions = Bytes(bytes)
        image.signals.pending = try Tracee(tid: context.pid).pendingSignals(ofProcess: true).map { Bytes($0) }
    }

    static func restore(_ image: ProcessImage, _ context: RestoreContext, _ batch: inout CallBatch) throws {
        let bytes = [UInt8](image.signals.actions)
        guard bytes.count == 64 * size else { throw EngineError.invalidImage("signal actions of \(bytes.count) bytes") }
        for signal in signals {
            let action = batch.bytes(bytes[(signal - 1) * size..<signal * size])
            batch.call(
                .rtSigaction, .int(signal), .address(action), .value(0), .value(8),
                doing: "setting the action of signal \(signal)")
        }
        for info in image.signals.pending {
            let record = batch.bytes([UInt8](info))
            let signal = [UInt8](info).first ?? 0
            batch.call(
                .rtSigqueueinfo, .int(image.pid), .int(signal), .address(record), doing: "queueing signal \(signal)")
        }
    }
}
