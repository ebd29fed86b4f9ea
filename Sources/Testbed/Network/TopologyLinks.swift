// The links of a topology's YAML file: a quality for all of a kind, exceptions for some, each direction by itself.

extension Topology {
    private static let properties = LinkChange.names + ["up", "down", "emulated"]

    /// Gives the links their qualities, in the file's order: what comes later changes what came before.
    mutating func readLinks(_ value: YAMLValue) throws {
        for (key, inner) in try value.entries(known: TestbedLink.Kind.allCases.map(\.rawValue)) {
            let kind = TestbedLink.Kind(rawValue: key)!
            let entries = try inner.entries(known: Self.properties + ["except"])
            try change(links.indices.filter { links[$0].kind == kind }, inner, entries)
            for exception in try entries.first(where: { $0.key == "except" })?.value.items() ?? [] {
                try readException(exception, of: kind)
            }
        }
        for index in links.indices where !links[index].isRateOnly { links[index].isEmulated = true }
    }

    /// One of "of: station", "between: [station, station]", "from: station" with "to: station"; and what differs.
    private mutating func readException(_ value: YAMLValue, of kind: TestbedLink.Kind) throws {
        let entries = try value.entries(known: ["of", "between", "from", "to"] + Self.properties)
        func station(_ key: String) throws -> String? {
            try entries.first { $0.key == key }.map { try known($0.value, kind) }
        }
        var ends = [try station("from"), try station("to")].compactMap { $0 }
        let isOneWay = !ends.isEmpty
        if let between = entries.first(where: { $0.key == "between" }) {
            guard ends.isEmpty, try between.value.items().count == 2 else {
                throw between.value.mistake("expected the link's two ends, without \"from\" and \"to\"")
            }
            ends = try between.value.items().map { try known($0, kind) }
        }
        if let of = try station("of") {
            guard ends.isEmpty else { throw value.mistake("\"of\" stands for whole links, without their ends") }
            return try change(
                links.indices.filter { links[$0].kind == kind && [links[$0].a, links[$0].b].contains(of) }, value,
                entries)
        }
        guard ends.count == 2 else {
            throw value.mistake("which link? \"of: A\", \"between: [A, B]\" or \"from: A\" with \"to: B\"")
        }
        guard let index = links.firstIndex(where: { $0.kind == kind && Set([$0.a, $0.b]) == Set(ends) }) else {
            throw value.mistake("there is no \(kind.rawValue) link between \(ends[0]) and \(ends[1])")
        }
        if isOneWay {
            try links[index].change(value, entries, links[index].a == ends[0] ? .forward : .backward)
        } else {
            try change([index], value, entries)
        }
    }

    private mutating func change(
        _ indices: [Int], _ value: YAMLValue, _ entries: [(key: String, value: YAMLValue)]
    ) throws {
        for index in indices { try links[index].change(value, entries, nil) }
    }

    /// A station that links of the kind can end at, by its full name.
    private func known(_ value: YAMLValue, _ kind: TestbedLink.Kind) throws -> String {
        let ends = links.filter { $0.kind == kind }.flatMap { [$0.a, $0.b] }
        let names = ends.reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
        return try value.choice(names.map { String($0.dropFirst(prefix.utf8.count)) }) { text in
            names.first { isName($0, text) }
        }
    }
}

extension TestbedLink {
    /// Takes over what stands in a mapping: for both directions (or the one that is named), then under "up" and "down".
    fileprivate mutating func change(
        _ place: YAMLValue, _ entries: [(key: String, value: YAMLValue)], _ direction: LinkDirection?
    ) throws {
        try read(place, entries, direction.map { [$0] } ?? LinkDirection.allCases)
        for (key, value) in entries {
            switch key {
            case "emulated": isEmulated = try value.choice(["true", "false"]) { ["true": true, "false": false][$0] }
            case "up", "down":
                guard direction == nil, kind != .backhaul else {
                    throw value.mistake("a direction between two hosts is named by \"from\" and \"to\"")
                }
                let inner = try value.entries(known: LinkChange.names)
                try read(value, inner, [key == "up" ? .forward : .backward])
            default: break
            }
        }
    }

    private mutating func read(
        _ place: YAMLValue, _ entries: [(key: String, value: YAMLValue)], _ directions: [LinkDirection]
    ) throws {
        var change = LinkChange()
        for (key, value) in entries where LinkChange.names.contains(key) { try change.set(key, value) }
        for direction in directions {
            self[direction] = change.applied(to: self[direction])
            if let mistake = self[direction].mistake { throw place.mistake(mistake) }
        }
    }
}
