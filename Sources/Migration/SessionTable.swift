// Which frame may follow which: one pure table for both sides of a session, the same as in docs/protocol.md. A
// connection asks it about every frame that it sends or receives, before anything looks at the frame's content.

/// The two ends of a connection. Whoever asks what became of a migration stands where a source stands.
enum Side: Sendable, CaseIterable { case source, destination }

enum SessionTable {
    /// The state that a frame leads to; nil: its sender must not send it now.
    ///
    /// - Parameter state: nil: nobody has said anything yet.
    static func next(_ state: SessionState?, _ frame: FrameKind, from sender: Side) -> SessionState? {
        switch (state, sender, frame) {
        case (nil, .source, .offer): .offered
        case (nil, .source, .inquiry): .inDoubt

        case (.offered, .destination, .accepted): .accepted

        case (.accepted, .source, .clockProbe), (.accepted, .source, .tree), (.accepted, .source, .files),
            (.accepted, .source, .stage), (.accepted, .destination, .clockProbe), (.accepted, .destination, .files),
            // What was under way when a handover was put off, and the answer to that.
            (.accepted, .destination, .passApplied), (.accepted, .destination, .muted),
            (.accepted, .destination, .thawed):
            .accepted
        case (.accepted, .destination, .staged): .staged

        case (.staged, .source, .tree), (.staged, .source, .files), (.staged, .source, .clockProbe),
            (.staged, .destination, .files), (.staged, .destination, .clockProbe):
            .staged
        case (.staged, .source, .layout), (.staged, .source, .discard), (.staged, .source, .pages),
            (.staged, .source, .passEnd):
            .copying

        case (.copying, .source, .layout), (.copying, .source, .discard), (.copying, .source, .pages),
            (.copying, .source, .passEnd), (.copying, .source, .tree), (.copying, .source, .files),
            (.copying, .source, .clockProbe), (.copying, .destination, .passApplied),
            (.copying, .destination, .clockProbe), (.copying, .destination, .muted), (.copying, .destination, .thawed):
            .copying

        case (.staged, .source, .frozen), (.copying, .source, .frozen): .frozen
        case (.frozen, .source, .layout), (.frozen, .source, .discard), (.frozen, .source, .pages),
            (.frozen, .source, .tree), (.frozen, .source, .files),
            // Of what was under way when the freeze began.
            (.frozen, .destination, .passApplied), (.frozen, .destination, .muted):
            .frozen
        case (.frozen, .source, .thawed): .copying

        case (.frozen, .source, .handover): .prepared
        case (.prepared, .source, .threads), (.prepared, .source, .discard), (.prepared, .source, .pages),
            (.prepared, .destination, .passApplied),
            (.prepared, .destination, .muted):
            .prepared
        // Its stub has become the process: another one is staged.
        case (.prepared, .source, .thawed): .accepted

        case (.prepared, .source, .promise): .promised
        case (.promised, .destination, .released): .released
        case (.released, .source, .retired): .retired

        // Who has promised asks over another connection whether it never ran there.
        case (.promised, .destination, .abort), (.promised, .destination, .refused): .inDoubt
        case (.inDoubt, .destination, .verdict): .inDoubt
        case (.inDoubt, .destination, .refused): .aborted
        case (.inDoubt, .source, .retired): .retired

        case (nil, .destination, .refused), (nil, .destination, .abort): .aborted
        case (.offered, _, .abort), (.accepted, _, .abort), (.staged, _, .abort), (.copying, _, .abort),
            (.frozen, _, .abort), (.prepared, _, .abort), (.aborted, _, .abort):
            .aborted
        case (.offered, .destination, .refused), (.accepted, .destination, .refused),
            (.staged, .destination, .refused), (.copying, .destination, .refused), (.frozen, .destination, .refused),
            (.prepared, .destination, .refused), (.aborted, .destination, .refused):
            .aborted
        default: nil
        }
    }

    /// Seconds for which a side waits for the other's next frame, besides that it has to be heard at all (`heartbeat`);
    /// nil: for ever.
    ///
    /// Before the first frame a stranger may be at the other end. Later each side may have to read all of a file system
    /// before it says the next thing. A destination that holds the container's frames may be sent the promise at any
    /// time: from there on nobody decides by a timeout.
    static func patience(_ state: SessionState?, waitsForTrigger: Bool) -> Int64? {
        switch state {
        case nil: 30
        case .offered, .accepted: 600
        case .staged, .copying: waitsForTrigger ? nil : 600
        default: nil
        }
    }
}
