import Foundation
import Testing

@testable import Testbed

struct MobilityTraceTests {
    private static let header = "time,x,y,heading,speed\n"

    @Test func bothFormatsSayTheSame() throws {
        let csv = try MobilityTrace.read("Plans/traces/three-cars.csv")
        let xml = try MobilityTrace.read("Plans/traces/three-cars.xml")
        #expect(csv == xml)
        #expect(csv.map(\.user) == ["car-1", "car-2", "car-3"])
        #expect(csv[0].samples.count == 71 && csv[0].start == 0 && csv[0].end == 70)
        #expect(csv[2].samples[30] == MobilitySample(time: 30, x: 1776, y: 0, heading: 90, speed: 14))
    }

    @Test func betweenStepsIsInterpolated() {
        let trace = MobilityTrace(
            user: "u",
            samples: [
                MobilitySample(time: 10, x: 0, y: 100, heading: 350, speed: 10),
                MobilitySample(time: 12, x: 20, y: 60, heading: 10, speed: 14),
                MobilitySample(time: 13, x: 20, y: 60, heading: 10, speed: 0),
            ])
        #expect(trace.sample(at: 10.5) == MobilitySample(time: 10.5, x: 5, y: 90, heading: 355, speed: 11))
        #expect(trace.sample(at: 11.5) == MobilitySample(time: 11.5, x: 15, y: 70, heading: 5, speed: 13))
        #expect(trace.sample(at: 12) == trace.samples[1])
        // Before its start and after its end it stands.
        #expect(trace.sample(at: 3) == MobilitySample(time: 3, x: 0, y: 100, heading: 350, speed: 0))
        #expect(trace.sample(at: 99).x == 20)
    }

    @Test(
        arguments: [
            ("", nil, "the file is empty"),
            ("time,x,y,speed\n0,1,2,3\n", 1, "column heading is missing"),
            ("time,x,y,heading,speed,mood\n", 1, "column \"mood\" is not known"),
            ("time,x,x,y,heading,speed\n", 1, "column x stands here twice"),
            (header + "0,1,2,3\n", 2, "4 values stand here, 5 columns above"),
            (header + "0,1,2,3,4\n# all well\n\n1,1,two,3,4\n", 5, "y \"two\" is not a number"),
            (header + "0,1,2,3,4\n1,nan,2,3,4\n", 3, "x nan of user"),
            (header + "0,1,2,3,4\n1,1,2,inf,4\n", 3, "heading inf of user"),
            (header + "0,1,2,3,-4\n", 2, "speed -4 of user"),
            (header + "1,1,2,3,4\n1,1,2,3,4\n", 3, "time 1 s of user"),
            (header + "1,1,2,3,4\n20,1,2,3,4\n", 3, "is missing from 1 s to 20 s"),
            (header + "1,1,2,3,4\n", 2, "one step only"),
            ("time,id,x,y,heading,speed\n0,,1,2,3,4\n", 2, "id is empty"),
            (header, nil, "no user"),
        ] as [(String, Int?, String)])
    func mistakesInCSVNameTheirLine(text: String, line: Int?, reason: String) throws {
        try expectMistake(text, "csv", line, reason)
    }

    @Test(
        arguments: [
            ("", nil, "no <fcd-export>"),
            ("<fcd-export>\n<timestep time=\"0\"></fcd-export>", 2, "no XML"),
            ("<fcd-export>\n<timestep time=\"0\">\n", 2, "ends early"),
            ("<fcd-export>\n<timestep>\n</timestep></fcd-export>", 2, "<timestep> has no attribute time"),
            ("<fcd-export><timestep time=\"zero\"/></fcd-export>", 1, "time \"zero\" is not a number"),
            (fcd("<vehicle x=\"0\" y=\"0\" angle=\"0\" speed=\"0\"/>"), 3, "<vehicle> has no attribute id"),
            (fcd("<vehicle id=\"a\" x=\"0\" y=\"0\" speed=\"0\"/>"), 3, "<vehicle> has no attribute angle"),
            (fcd("<person id=\"a\" x=\"NaN\" y=\"0\" angle=\"0\" speed=\"0\"/>"), 3, "x nan of user a"),
            (fcd("<vehicle id=\"a\" x=\"0\" y=\"0\" angle=\"0\" speed=\"-1\"/>"), 3, "speed -1 of user a is below 0"),
            (fcd("<horse id=\"a\"/>"), 3, "<horse> does not belong here"),
            ("<routes/>", 1, "<routes> does not belong here"),
            (fcd("<vehicle id=\"a\" x=\"0\" y=\"0\" angle=\"0\" speed=\"0\"/>", twice: true), 6, "is not after 7 s"),
        ] as [(String, Int?, String)])
    func mistakesInXMLNameTheirLine(text: String, line: Int?, reason: String) throws {
        try expectMistake(text, "xml", line, reason)
    }

    @Test func filesOfAFolderAreUsers() throws {
        let folder = NSTemporaryDirectory() + "apus-traces-\(getpid())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for name in ["b", "a"] {
            try (Self.header + "0,1,2,3,4\n1,1,2,-90,4\n").write(
                toFile: "\(folder)/\(name).csv", atomically: true, encoding: .utf8)
        }
        let traces = try MobilityTrace.read(folder)
        #expect(traces.map(\.user) == ["a", "b"] && traces[0].samples[1].heading == 270)
        try Self.fcd("<vehicle id=\"a\" x=\"0\" y=\"0\" angle=\"0\" speed=\"0\"/>").write(
            toFile: "\(folder)/c.xml", atomically: true, encoding: .utf8)
        let error = try #require(throws: InputError.self) { try MobilityTrace.read(folder) }
        #expect(error.file == folder + "/c.xml" && error.reason == "user a stands in \(folder)/a.csv too")
        #expect(throws: InputError.self) { try MobilityTrace.read("/nowhere.csv") }
        #expect(throws: InputError.self) { try MobilityTrace.read("Makefile") }
    }

    @Test func generatorRepeatsItself() {
        let sites = TraceGenerator.grid(columns: 3, rows: 2)
        #expect(sites[4] == CellSite(name: "ap-5", x: 1334, y: 1334))
        let generator = TraceGenerator(around: sites, seed: 7)
        let traces = generator.traces(users: 3, duration: 600)
        #expect(traces == generator.traces(users: 3, duration: 600))
        #expect(traces[0] == generator.traces(users: 1, duration: 600)[0])
        #expect(traces[0].samples != traces[1].samples)
        #expect(traces != TraceGenerator(around: sites, seed: 8).traces(users: 3, duration: 600))
        for trace in traces {
            #expect(trace.samples.count == 601)
            for (here, next) in zip(trace.samples, trace.samples.dropFirst()) {
                #expect((-667...3335).contains(next.x) && (-667...2001).contains(next.y))
                // Straight ahead, or around a corner.
                #expect(abs(next.x - here.x) + abs(next.y - here.y) <= 14.000001)
                #expect((8...14).contains(next.speed) && [0, 90, 180, 270].contains(next.heading))
                #expect(isOnStreet(next.x) || isOnStreet(next.y))
                // Somebody always covers them.
                #expect(sites.nearest(next.x, next.y, within: 1000) != nil)
            }
        }
    }

    private func isOnStreet(_ value: Double) -> Bool {
        let blocks = (value + 667) / 333.5
        return abs(blocks - blocks.rounded()) < 1e-6
    }

    private static func fcd(_ element: String, twice: Bool = false) -> String {
        let step = "<timestep time=\"7\">\n\(element)\n</timestep>"
        return "<fcd-export>\n\(step)\n\(twice ? step : "")</fcd-export>"
    }

    private func expectMistake(_ text: String, _ ending: String, _ line: Int?, _ reason: String) throws {
        let path = NSTemporaryDirectory() + "apus-trace-\(getpid())-\(UInt32.random(in: 0 ... .max)).\(ending)"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let error = try #require(throws: InputError.self) { try MobilityTrace.read(path) }
        #expect(error.line == line, "\(error)")
        #expect(error.reason.contains(reason), "\(error)")
        #expect(error.file == path)
    }
}
