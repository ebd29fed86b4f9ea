import Foundation
import FoundationXML
import Testing

@testable import Evaluation

struct ChartTests {
    @Test func ticksAreRound() {
        let linear = Scale(Axis("x", from: 0), [0, 0.93], start: 0, end: 100)
        #expect(linear.ticks.map(\.label) == ["0", "0.2", "0.4", "0.6", "0.8"])
        let wide = Scale(Axis("x", .log), [1, 1000], start: 0, end: 100)
        #expect(wide.ticks.map(\.label) == ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1,000"])
    }

    @Test func valuesLandOnTheirPixels() {
        let scale = Scale(Axis("x", from: 0, to: 10), [0, 10], start: 50, end: 250)
        #expect(scale.pixel(0) == 50 && scale.pixel(5) == 150 && scale.pixel(10) == 250)
        let log = Scale(Axis("x", .log), [1, 100], start: 0, end: 100)
        #expect(abs(log.pixel(10) - 50) < 1e-9)
    }

    @Test func numbersReadWell() {
        #expect(
            measured(1234.5) == "1,235" && measured(12.34) == "12.3" && measured(1.2) == "1.20" && measured(.nan) == "–"
        )
        #expect(tickText(2500) == "2,500" && tickText(0.05) == "0.05" && rounded(0.099975) == 0.09998)
    }

    private func parses(_ svg: String) -> Bool {
        let parser = XMLParser(data: Data(svg.utf8))
        return parser.parse()
    }

    @Test func anyDataMakesADrawing() {
        let cases: [[PlotPoint]] = [
            [], [PlotPoint(1, 1)], [PlotPoint(1, 5), PlotPoint(2, 5)], [PlotPoint(0, 0), PlotPoint(1, .nan)],
            [PlotPoint(1, 1e-9), PlotPoint(2, 1e9)], [PlotPoint(3, 2, 1, 4)],
        ]
        for points in cases {
            for kind in [Axis.Kind.linear, .log, .names(["a<b", "c & d"])] {
                for style in [PlotSeries.Style.line, .model, .dots, .steps] {
                    let series = PlotSeries(
                        name: "one \"two\" <3>", style: style, look: Look.palette[0], points: points)
                    let plot = Plot(x: Axis("x", kind), y: Axis("y", kind == .log ? .log : .linear), series: [series])
                    let svg = plot.svg(title: "a & b")
                    #expect(parses(svg))
                    #expect(!svg.contains("nan") && !svg.contains("inf\""))
                }
            }
        }
        #expect(Plot(x: Axis("x"), y: Axis("y"), series: []).svg(title: "t").contains("no data"))
        #expect(parses(StackedBars(axis: "ms", parts: ["a"], bars: []).svg(title: "t")))
        #expect(parses(HeatMap(x: ("x", ["1"]), y: ("y", ["2"]), cells: [[.init(text: ["–"])]]).svg(title: "t")))
    }

    @Test func whatHasNoPlaceOnALogarithmicAxisIsDrawnAtItsEnd() {
        let points = [PlotPoint(1, -0.2, -0.5, 0.1), PlotPoint(2, 10, 8, 12)]
        let plot = Plot(
            x: Axis("x"), y: Axis("y", .log), series: [PlotSeries(name: "a", look: Look.palette[0], points: points)])
        let svg = plot.svg(title: "t")
        #expect(parses(svg) && svg.contains("≤ 0"))
        #expect(svg.components(separatedBy: "<circle").count == 4, "two points and the legend's")
    }

    @Test func rowsShowMediansIntervalsAndValues() {
        let interval = ConfidenceInterval(lower: 0.5, upper: 0.9, level: 0.95)
        let rows = [
            RowPlot.Row(
                group: "a", name: "λ 0.1", look: Look.palette[0], median: 0.7, interval: interval, note: "7 : 10 ms"),
            RowPlot.Row(group: "b", name: "λ 0.4", look: Look.palette[1], values: [0.4, 3, -1]),
        ]
        let svg = RowPlot(
            axis: Axis("ratio", .log), rows: rows, levels: [(1, "")], band: 0.9...1.1, sides: ("left", "right")
        ).svg(title: "t")
        #expect(parses(svg) && svg.contains("7 : 10 ms") && svg.contains("λ 0.4") && !svg.contains("nan"))
        #expect(svg.components(separatedBy: "<circle").count == 5, "a median and three values")
        #expect(parses(RowPlot(axis: Axis("x"), rows: []).svg(title: "t")))
    }

    @Test func foldedFiguresCountAndIntervalsStayWhole() {
        let figure = ReportFigure(id: "f", title: "F", reading: "", svg: "<svg/>", query: "")
        let table = ReportTable(columns: [.init("x")], rows: [["1.0 [0.9, 1.1]"]])
        let page = Page(
            title: "t", subtitle: "",
            sections: [ReportSection(title: "s", blocks: [.fold("More", [.figure(figure), .table(table)])])])
        #expect(page.figures.map(\.id) == ["f"])
        #expect(page.html.contains("<summary>More</summary>") && page.html.contains("prefers-color-scheme:dark"))
        #expect(page.html.contains("1.0 <span class=\"w\">[0.9, 1.1]</span>"))
    }

    @Test func pageEscapesItsText() {
        let page = Page(
            title: "a <b>", subtitle: "\"&\"",
            sections: [
                ReportSection(title: "<i>", blocks: [.table(ReportTable(columns: [.init("<c>")], rows: [["<d>"]]))])
            ])
        #expect(page.html.contains("&lt;c&gt;") && page.html.contains("&lt;d&gt;") && !page.html.contains("<d>"))
    }
}
