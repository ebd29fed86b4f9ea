// What a plan compares: the engine's techniques, and whatever else moves the same containers over the same links.
import Migration

/// A technique as plans and results name it. Plans find it whatever its case, with or without hyphens.
public enum EvaluatedTechnique: Hashable, Sendable, CaseIterable {
    /// One of the engine's own.
    case engine(Technique)

    public static var allCases: [EvaluatedTechnique] { Technique.allCases.map { .engine($0) } }

    public static let cold = EvaluatedTechnique.engine(.cold)
    public static let preCopy = EvaluatedTechnique.engine(.preCopy)
    public static let migrror = EvaluatedTechnique.engine(.migrror)

    /// Its name in plans, results and figures.
    public var name: String {
        switch self {
        case .engine(let technique): technique.rawValue
        }
    }

    public init?(name: String) {
        let plain = { (text: String) in text.lowercased().filter { $0 != "-" } }
        guard let found = Self.allCases.first(where: { plain($0.name) == plain(name) }) else { return nil }
        self = found
    }

    /// What it does before the handover.
    var copy: CopyPhase {
        switch self {
        case .engine(let technique): technique.copy
        }
    }

    /// Why it cannot be had on this machine; nil: it can. Its runs are then left out, with this word to it.
    func obstacle() -> String? {
        switch self {
        case .engine: nil
        }
    }
}
