// Signal handlers, and whether a signal has stopped the process.
import Glibc
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

    func collect(_ context: CaptureContext, _ answers: CallResults, into parts: inout ProcessParts) throws {
        var bytes = [UInt8](repeating: 0, count: 64 * Self.size)
        for (signal, action) in zip(Self.signals, actions) {
            bytes.replaceSubrange((signal - 1) * Self.size..<signal * Self.size, with: answers.bytes(action))
        }
        parts.process.signals.actions = Bytes(bytes)
    }

    static func restore(_ parts: ProcessParts, _ context: RestoreContext, _ batch: inout CallBatch) throws {
        let bytes = [UInt8](parts.process.signals.actions)
        for signal in signals {
            let action = batch.bytes(bytes[(signal - 1) * size..<signal * size])
            batch.call(
                .rtSigaction, .int(signal), .address(action), .value(0), .value(8),
                doing: "setting the action of signal \(signal)")
        }
    }
}

extension ProcessThreads {
    /// Enters whether a signal has stopped the process, with what waits to do so: a SIGSTOP that waits stops it before
    /// its next instruction; a SIGCONT that waits has let it go on already, since sending either takes back the other.
    mutating func enterStop(_ isStopped: Bool) {
        func waits(_ signal: Int32) -> Bool {
            (pending + threads.flatMap(\.pending)).contains { Int32($0.first ?? 0) == signal }
        }
        stopped = waits(SIGSTOP) || isStopped && !waits(SIGCONT)
        pending.removeAll { Int32($0.first ?? 0) == SIGSTOP }
        editThreads { threads in
            for index in threads.indices { threads[index].pending.removeAll { Int32($0.first ?? 0) == SIGSTOP } }
        }
    }
}
