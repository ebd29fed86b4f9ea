// A set of addresses as sorted, disjoint ranges.
import LinuxKernel

/// Sorted, disjoint, non-adjacent address ranges.
public struct AddressRanges: Sendable, Equatable {
    public private(set) var ranges: [AddressRange] = []

    public init() {}
    /// From ranges in any order, overlapping or not.
    public init(_ unsorted: some Collection<AddressRange>) {
        ranges.reserveCapacity(unsorted.count)
        for range in unsorted.sorted(by: { $0.lowerBound < $1.lowerBound }) { append(range) }
    }

    public var isEmpty: Bool { ranges.isEmpty }
    /// Bytes covered.
    public var bytes: UInt64 { ranges.reduce(0) { $0 + UInt64($1.count) } }
    public var pages: UInt64 { bytes / pageSize }

    /// Adds a range that starts at or after the start of the last one.
    public mutating func append(_ range: AddressRange) {
        guard !range.isEmpty else { return }
        if let last = ranges.last, last.upperBound >= range.lowerBound {
            ranges[ranges.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
        } else {
            ranges.append(range)
        }
    }

    public func union(_ other: AddressRanges) -> AddressRanges {
        if other.isEmpty { return self }
        if isEmpty { return other }
        return AddressRanges(ranges + other.ranges)
    }

    public func intersection(_ other: AddressRanges) -> AddressRanges {
        var result = AddressRanges()
        var i = 0, j = 0
        while i < ranges.count, j < other.ranges.count {
            let low = max(ranges[i].lowerBound, other.ranges[j].lowerBound)
            let high = min(ranges[i].upperBound, other.ranges[j].upperBound)
            if low < high { result.append(low..<high) }
            if ranges[i].upperBound < other.ranges[j].upperBound { i += 1 } else { j += 1 }
        }
        return result
    }

    public func subtracting(_ other: AddressRanges) -> AddressRanges {
        var result = AddressRanges()
        var j = 0
        for range in ranges {
            var start = range.lowerBound
            while j < other.ranges.count, other.ranges[j].upperBound <= start { j += 1 }
            var k = j
            while k < other.ranges.count, other.ranges[k].lowerBound < range.upperBound {
                if other.ranges[k].lowerBound > start { result.append(start..<other.ranges[k].lowerBound) }
                start = max(start, other.ranges[k].upperBound)
                k += 1
            }
            if start < range.upperBound { result.append(start..<range.upperBound) }
        }
        return result
    }

    public func contains(_ address: UInt64) -> Bool {
        let index = firstIndex(endingAfter: address)
        return index < ranges.count && ranges[index].contains(address)
    }

    /// What of the set lies in a range.
    public func parts(in range: AddressRange) -> [AddressRange] {
        ranges[firstIndex(endingAfter: range.lowerBound)...].prefix { $0.lowerBound < range.upperBound }
            .map { $0.clamped(to: range) }
    }

    private func firstIndex(endingAfter address: UInt64) -> Int {
        var low = 0, high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound <= address { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
