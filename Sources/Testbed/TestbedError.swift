/// What went wrong in the testbed, in words that say what to do about it.
public struct TestbedError: Error, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
