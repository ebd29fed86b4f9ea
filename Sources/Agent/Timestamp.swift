import FoundationEssentials

/// Now in UTC, ISO 8601.
func timestamp() -> String { Date().formatted(.iso8601) }
