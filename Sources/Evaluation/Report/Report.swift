// The report of an evaluation: one page that stands alone, and each figure as a file.
import FoundationEssentials
import GRDB
import Migration
import Testbed

public struct EvaluationReport {
    let results: Results
    var plan: EvaluationPlan { results.plan }

    public init(_ store: ResultStore) throws { results = try Results(store) }

    /// Writes `report.html` and `figures/NAME.svg` into a folder, which is made.
    ///
    /// - Returns: the page's path.
    public func write(to folder: String) throws -> String {
        let page = try page()
        let files = FileManager.default
        try files.createDirectory(atPath: folder + "/figures", withIntermediateDirectories: true)
        for figure in page.figures {
            try Data(figure.svg.utf8).write(to: URL(filePath: "\(folder)/figures/\(figure.id).svg"))
        }
        let path = folder + "/report.html"
        try Data(page.html.utf8).write(to: URL(filePath: path))
        return path
    }

    func page() throws -> Page {
        let (made, failed) = try results.store.counts()
        let wanted = plan.runs.count
        var subtitle = "Plan “\(plan.name)”: \(made) of \(wanted) runs made, \(failed) failed."
        if made < wanted { subtitle += " What was not run is listed at the end." }
        let places = try Places(results)
        var sections = [try summary(places), try questions(places), try findings(places)]
        for experiment in plan.experiments { sections.append(try section(experiment)) }
        sections += [try mobility(), try inside(places), try requests(places)]
        sections += [try models(places), published(), try limits(), try provenance()]
        return Page(title: plan.title, subtitle: subtitle, sections: sections.filter { !$0.blocks.isEmpty })
    }
}
