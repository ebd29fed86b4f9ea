// The properties of a link by name, as topologies, traces and the command line write them.

/// One property of a link's quality.
public enum LinkProperty: String, CaseIterable, Sendable {
    case rate, delay, jitter, loss, reorder, queue

    /// What a value may be, for messages.
    public var expected: String {
        switch self {
        case .rate: "a rate such as 1gbit, 5.5mbit, 300kbit or unlimited"
        case .delay, .jitter: "milliseconds from 0 to 10000"
        case .loss, .reorder: "percent from 0 to 100"
        case .queue: "bytes from 1500 to 1GiB, such as 65536 or 1MiB"
        }
    }

    /// Puts a value into a change.
    ///
    /// - Returns: false when the text is not what is `expected`; the change is as it was.
    public func set(_ text: String, in change: inout LinkChange) -> Bool {
        func number(_ range: ClosedRange<Double>) -> Double? { Double(text).flatMap { range.contains($0) ? $0 : nil } }
        switch self {
        case .rate:
            guard let value = LinkRate(text) else { return false }
            change.rate = value
        case .delay, .jitter:
            guard let value = number(0...LinkQuality.longestDelay) else { return false }
            if self == .delay { change.delay = value } else { change.jitter = value }
        case .loss, .reorder:
            guard let value = number(0...100) else { return false }
            if self == .loss { change.loss = value } else { change.reorder = value }
        case .queue:
            guard let value = ByteCount(text)?.bytes, LinkQuality.queues.contains(value) else { return false }
            change.queue = value
        }
        return true
    }
}

extension LinkChange {
    /// What `set` knows.
    package static let names = LinkProperty.allCases.map(\.rawValue)

    /// Takes one entry of a mapping. - Throws: `InputError` when its name is no property's, or its value is out of
    /// range.
    package mutating func set(_ name: String, _ value: YAMLValue) throws {
        guard let property = LinkProperty(rawValue: name) else {
            throw value.mistake("\"\(name)\" is no property of a link: \(Self.names.joined(separator: ", "))")
        }
        let text = try value.text()
        guard property.set(text, in: &self) else { throw value.mistake("\"\(text)\" is not \(property.expected)") }
    }
}
