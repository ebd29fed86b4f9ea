// A page that stands alone: text, tables, and figures with the queries behind them.

/// A chart with what it says and where its values come from.
struct ReportFigure {
    /// Its file's name without ".svg".
    var id: String
    var title: String
    /// What is shown, and how to read it.
    var reading: String
    var svg: String
    var query: String
}

struct ReportTable {
    struct Column {
        var name: String
        var isNumber: Bool
        init(_ name: String, _ isNumber: Bool = true) { (self.name, self.isNumber) = (name, isNumber) }
    }
    var columns: [Column]
    var rows: [[String]]
    var note = ""
    var query = ""
}

enum ReportBlock {
    case heading(String)
    case text(String)
    case list([String])
    case table(ReportTable)
    case figure(ReportFigure)
    case code(String)
    /// Shown when the reader asks for it, by its title.
    case fold(String, [ReportBlock])
}

struct ReportSection {
    var title: String
    var blocks: [ReportBlock]
}

struct Page {
    var title: String
    var subtitle: String
    var sections: [ReportSection]

    var figures: [ReportFigure] { Self.figures(of: sections.flatMap(\.blocks)) }

    private static func figures(of blocks: [ReportBlock]) -> [ReportFigure] {
        blocks.flatMap { block -> [ReportFigure] in
            switch block {
            case .figure(let figure): [figure]
            case .fold(_, let blocks): figures(of: blocks)
            default: []
            }
        }
    }

    var html: String {
        var number = 0
        let contents = sections.enumerated().map { "<li><a href=\"#s\($0)\">\(escaped($1.title))</a></li>" }.joined()
        var parts = sections.enumerated().map { index, section in
            "<h2 id=\"s\(index)\">\(escaped(section.title))</h2>\n"
                + section.blocks.map { html($0, &number) }.joined(separator: "\n")
        }
        // The first screen belongs to the first section.
        parts.insert("<ol class=\"contents\">\(contents)</ol>", at: min(1, parts.count))
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
            <title>\(escaped(title))</title><style>\(Self.style)</style></head><body>
            <h1>\(escaped(title))</h1><p class="sub">\(escaped(subtitle))</p>
            \(parts.joined(separator: "\n"))
            </body></html>

            """
    }

    private func html(_ block: ReportBlock, _ number: inout Int) -> String {
        switch block {
        case .heading(let text): return "<h3>\(escaped(text))</h3>"
        case .text(let text): return "<p>\(escaped(text))</p>"
        case .list(let items): return "<ul>" + items.map { "<li>\(escaped($0))</li>" }.joined() + "</ul>"
        case .code(let text): return "<pre>\(escaped(text))</pre>"
        case .fold(let title, let blocks):
            return "<details class=\"more\"><summary>\(escaped(title))</summary>\n"
                + blocks.map { html($0, &number) }.joined(separator: "\n") + "</details>"
        case .table(let table):
            let head = table.columns.map { "<th\($0.isNumber ? " class=\"n\"" : "")>\(escaped($0.name))</th>" }.joined()
            let rows = table.rows.map { row in
                "<tr>"
                    + zip(table.columns, row).map {
                        "<td\($0.isNumber ? " class=\"n\"" : "")>\(Self.whole(escaped($1)))</td>"
                    }.joined()
                    + "</tr>"
            }.joined(separator: "\n")
            return "<div class=\"t\"><table><thead><tr>\(head)</tr></thead><tbody>\(rows)</tbody></table></div>"
                + (table.note.isEmpty ? "" : "<p class=\"note\">\(escaped(table.note))</p>") + behind(table.query)
        case .figure(let figure):
            number += 1
            return "<figure id=\"\(escaped(figure.id))\">\(figure.svg)<figcaption><b>Figure \(number). "
                + "\(escaped(figure.title)).</b> \(escaped(figure.reading))</figcaption>\(behind(figure.query))</figure>"
        }
    }

    /// Intervals are not broken into two lines.
    private static func whole(_ text: String) -> String {
        guard let begin = text.firstIndex(of: "["), let end = text[begin...].firstIndex(of: "]") else { return text }
        return text[..<begin] + "<span class=\"w\">" + text[begin...end] + "</span>" + text[text.index(after: end)...]
    }

    private func behind(_ query: String) -> String {
        query.isEmpty ? "" : "<details><summary>query</summary><pre>\(escaped(query))</pre></details>"
    }

    // A dark scheme turns the drawings' colours around and keeps their hues.
    private static let style = """
        :root{--back:#fff;--text:#222;--faint:#555;--line:#ddd;--box:#f6f6f6}
        @media screen and (prefers-color-scheme:dark){:root{--back:#151515;--text:#ddd;--faint:#aaa;--line:#3a3a3a;--box:#222}
        figure svg{filter:invert(1) hue-rotate(180deg) contrast(.86)}a{color:#8ab4f8}}
        body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:1100px;margin:2em auto;padding:0 1em}
        h1{line-height:1.2;margin-bottom:0}h2{margin-top:2.2em;border-bottom:1px solid var(--line)}h3{margin:1.6em 0 .2em}
        h1,h2,h3,p,ul,ol,pre{max-width:780px}.sub,summary,.note{color:var(--faint)}
        .contents{columns:2;font-size:15px}figure{margin:1.6em 0;page-break-inside:avoid}figure svg{max-width:100%;height:auto}
        figcaption{font-size:14.5px;margin-top:.3em;max-width:780px}
        .t{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
        th,td{padding:.2em .6em;border-bottom:1px solid var(--line);text-align:left;vertical-align:bottom;min-width:3.2em}
        td:first-child{min-width:8.5em}.n{text-align:right}.w{white-space:nowrap}.note{font-size:14px}
        pre{font-size:12.5px;background:var(--box);padding:.6em;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
        li{overflow-wrap:anywhere}details{font-size:13px}details.more{font-size:16px;margin:.8em 0}
        .more>summary{font-weight:600;cursor:pointer}
        @media (max-width:640px){.contents{columns:1}body{margin:1em auto}td:first-child{min-width:6em}
        figure{overflow-x:auto}figure svg{max-width:none;width:680px}}
        @media print{details:not(.more){display:none}body{margin:0}.t{overflow:visible}table{font-size:10px}}
        """
}
