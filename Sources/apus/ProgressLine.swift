// The line that shows how a migration gets on; only on a terminal.
import Agent
import Glibc
import Migration
import Testbed

struct ProgressLine {
    private let shown = isatty(2) == 1

    static func text(_ info: MigrationInfo) -> String {
        let progress = info.progress
        var parts = [progress.state.rawValue]
        if progress.pagesSent > 0 {
            parts.append("\(progress.pagesSent) pages")
            parts.append(Human.bytes(progress.bytesSent))
            parts.append(Human.rate(progress.rate))
        }
        switch info.plan.technique.copy {
        case .none: break
        case .rounds:
            if progress.passes > 0 { parts.append("round \(progress.passes), \(progress.lastPassPages) dirty") }
        case .mirroring:
            if progress.passes > 0 { parts.append("sync \(progress.passes)") }
            if let age = progress.mirrorAge { parts.append("mirror \(Human.duration(age)) old") }
        }
        parts.append("\(Human.fixed(progress.elapsed, 1)) s")
        if info.plan.handover == .atTrigger, info.direction == .outgoing, progress.state == .copying {
            parts.append("until `apus handover \(info.container)`")
        }
        if let remark = progress.remark { parts.append(remark) }
        return parts.joined(separator: "  ")
    }

    func show(_ info: MigrationInfo) {
        if shown { Terminal.say("\r\u{1B}[K\(info.container): \(Self.text(info))") }
    }
    func clear() { if shown { Terminal.say("\r\u{1B}[K") } }
}
