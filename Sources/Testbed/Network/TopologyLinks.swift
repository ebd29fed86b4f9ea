// The links of a topology's YAML file: a quality for all of a kind, exceptions for some, each direction by itself.

extension Topology {
    /// Gives the links their qualities, in the file's order: what comes later changes what came before.
    mutating func readLinks(_ value: YAMLValue) throws {
        for (key, inner) in try value.entries(known: TestbedLink.Kind.allCases.map(\.rawValue)) {
            let kind = TestbedLink.Kind(rawValue: key)!
            let entries = try inner.entries(known: LinkQuality.keys + ["up", "down", "except"])
            try change(links.indices.filter { links[$0].kind == kind }, entries)
            for exception in try entries.first(where: { $0.key == "except" })?.value.items() ?? [] {
                try readException(exception, of: kind)
            }
        }
    }

    /// One of "of: station", "between: [station, station]", "from: station" with "to: station"; and what differs.
    private mutating func readException(_ value: YAMLValue, of kind: TestbedLink.Kind) throws {
        let entries = try value.entries(known: ["of", "between", "from", "to"] + LinkQuality.keys + ["up", "down"])
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
                links.indices.filter { links[$0].kind == kind && [links[$0].a, links[$0].b].contains(of) }, entries)
        }
        guard ends.count == 2 else {
            throw value.mistake("which link? \"of: A\", \"between: [A, B]\" or \"from: A\" with \"to: B\"")
        }
        guard let index = links.firstIndex(where: { $0.kind == kind && Set([$0.a, $0.b]) == Set(ends) }) else {
            throw value.mistake("there is no \(kind.rawValue) link between \(ends[0]) and \(ends[1])")
        }
        if isOneWay {
            try links[index].change(entries, forth: links[index].a == ends[0], back: links[index].b == ends[0])
        } else {
            try change([index], entries)
        }
    }

    private mutating func change(_ indices: [Int], _ entries: [(key: String, value: YAMLValue)]) throws {
        for index in indices { try links[index].change(entries, forth: true, back: true) }
        // Mistakes are found where there are no such links, too.
        if indices.isEmpty {
            var nobody = TestbedLink(.access, "", "")
            try nobody.change(entries, forth: true, back: true)
        }
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
    /// Takes over what stands in a mapping: for both directions, then under "up" and "down" for one.
    fileprivate mutating func change(
        _ entries: [(key: String, value: YAMLValue)], forth isForth: Bool, back isBack: Bool
    ) throws {
        if isForth { try forth.read(entries) }
        if isBack { try back.read(entries) }
        for (key, value) in entries where key == "up" || key == "down" {
            guard isForth && isBack else { throw value.mistake("the direction is named by \"from\" and \"to\"") }
            guard kind != .backhaul else {
                throw value.mistake("a backhaul has no up and down: name a direction by \"from\" and \"to\"")
            }
            let inner = try value.entries(known: LinkQuality.keys)
            if key == "up" { try forth.read(inner) } else { try back.read(inner) }
        }
    }
}
