// Signals that came after the capture, as messages.
import Engine

extension LateSignals {
    init(_ message: WireProcessSignals) {
        self.init(ofProcess: message.records, ofThreads: message.threads.mapValues(\.records))
    }
}

extension WireProcessSignals {
    init(_ signals: LateSignals) {
        self.init()
        records = signals.ofProcess
        threads = signals.ofThreads.mapValues { records in WireSignals.with { $0.records = records } }
    }
}
