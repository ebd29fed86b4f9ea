// The benchmarks' table for a person to read: at most 110 columns.

extension BenchReport {
    /// What the figures come from.
    public func heading() -> String {
        let cpu = "\(machine.processor), \(machine.processors) \(machine.processors == 1 ? "core" : "cores")"
        let memory = grouped(Double(machine.memory) / Double(1 << 30), digits: 1)
        var lines = [
            "", "  \(cpu), \(memory) GiB · Linux \(machine.kernel)\(runtime.isEmpty ? "" : " · \(runtime)")",
            "  load \(loadBefore) before, \(loadAfter) after (1, 5, 15 minutes) ·"
                + " \(settings.repetitions) repetitions, redis \(settings.redisMoves) moves",
        ]
        let busy = loadBefore.split(separator: " ").first.flatMap { Double($0) } ?? 0
        if busy > 0.25 * Double(machine.processors) {
            lines.append("  ! the machine was busy with other things: figures are upper bounds, worst ones above all")
        }
        return lines.joined(separator: "\n")
    }

    public func text() -> String {
        var text = heading() + "\n" + cases.map { $0.text() }.joined(separator: "\n") + "\n"
        let aims = cases.flatMap(\.figures).compactMap(\.isMet)
        let missed = cases.flatMap { one in one.figures.filter { $0.isMet == false }.map { "\(one.name): \($0.name)" } }
        text += "\n  \(aims.count { $0 }) of \(aims.count) aims met"
        text += missed.isEmpty ? "" : "; missed:\n" + missed.map { "    ✗ \($0)" }.joined(separator: "\n")
        return text
    }
}

extension BenchCase {
    public func text() -> String {
        var lines = ["", "━━ \(name): \(title) · load \(load.prefix { $0 != " " })", ""]
        if !figures.isEmpty {
            var table = TextTable([
                .init(""), .init("median", .right), .init("min", .right), .init("max", .right), .init("n", .right),
                .init("unit"),
                .init("aim"), .init(""),
            ])
            for figure in figures {
                let single = figure.values.count == 1
                let numbers =
                    figure.values.isEmpty
                    ? ["–", "", ""]
                    : [figure.median].map { grouped($0, digits: figure.digits) }
                        + (single ? ["", ""] : [figure.min, figure.max].map { grouped($0, digits: figure.digits) })
                table.add(
                    [figure.name] + numbers + [
                        "\(figure.values.count)", figure.unit, figure.aim?.text ?? "", figure.mark,
                    ])
            }
            lines += table.lines()
        }
        if !freezes.isEmpty { lines += [""] + FreezeSteps.table(freezes) }
        if !verdicts.isEmpty || !notes.isEmpty || !problems.isEmpty { lines.append("") }
        let width = verdicts.map(\.name.count).max() ?? 0
        for verdict in verdicts {
            lines += wrapped(verdict.detail, first: "  \(verdict.passed ? "✓" : "✗") \(verdict.name.padded(width))  ")
        }
        for note in notes { lines += wrapped(note, first: "  · ") }
        for problem in problems { lines += wrapped(problem, first: "  ! ") }
        return lines.joined(separator: "\n")
    }

    /// Lines of at most 110 columns, later ones below the text of the first.
    private func wrapped(_ text: String, first: String) -> [String] {
        var lines: [String] = []
        var line = first
        var isEmpty = true
        for word in text.split(whereSeparator: { $0 == " " || $0 == "\n" }) {
            if !isEmpty, line.count + 1 + word.count > 110 {
                lines.append(line)
                (line, isEmpty) = (String(repeating: " ", count: first.count), true)
            }
            line += (isEmpty ? "" : " ") + word
            isEmpty = false
        }
        return lines + [line]
    }
}

extension Figure {
    /// "✓", or what cannot be overlooked.
    var mark: String {
        switch isMet {
        case true?: "✓"
        case false?: "✗ MISSED"
        case nil: ""
        }
    }
}

extension Figure.Aim {
    var text: String {
        let limit = grouped(limit, digits: limit == limit.rounded() ? 0 : limit * 10 == (limit * 10).rounded() ? 1 : 2)
        let word =
            switch statistic {
            case .median: "median "
            case .worst: "worst "
            case .each: ""
            }
        return word + (atLeast ? "≥ " : "≤ ") + limit
    }
}
