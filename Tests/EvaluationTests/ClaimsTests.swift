// Claims are computed again from data: what differs, or rests on too few values, is told with its line.
import Foundation
import GRDB
import Testing

@testable import Evaluation

struct ClaimsTests {
    /// Twelve runs of two techniques in three blocks: 1.0 to 2.1 and twice that.
    private func withClaims(_ text: String, _ body: (String) throws -> Void) throws {
        let folder = NSTemporaryDirectory() + "apus-claims-test-\(UUID())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        do {
            let database = try DatabaseQueue(path: folder + "/data.sqlite")
            try database.write { db in
                try db.execute(sql: "CREATE TABLE run (block INTEGER, technique TEXT, ms REAL)")
                for number in 0..<12 {
                    for (technique, factor) in [("a", 1.0), ("b", 2.0)] {
                        try db.execute(
                            sql: "INSERT INTO run VALUES (?, ?, ?)",
                            arguments: [number / 4 + 1, technique, factor * (1 + Double(number) / 10)])
                    }
                }
            }
            try database.close()
        }
        try text.write(toFile: folder + "/claims.md", atomically: true, encoding: .utf8)
        try body(folder + "/claims.md")
    }

    private func claim(_ words: String) -> String { "# Claims\n\nA sentence.\n\n```claim\n\(words)\n```\n" }
    private let a = "first: SELECT block, ms FROM run WHERE technique = 'a'"

    @Test func whatTheDataSayHoldsAndWhatTheyDoNotSayIsTold() throws {
        let right = claim("data: data.sqlite\nn: 12\n\(a)\nvalue: 1.55")
        try withClaims(right) { path in
            try ClaimsFile(path).fill()
            #expect(try ClaimsFile(path).check() == [])
            let filled = try String(contentsOfFile: path, encoding: .utf8)
            #expect(filled.contains("value: 1.55\ninterval: ["), "\(filled)")
            try filled.replacingOccurrences(of: "value: 1.55", with: "value: 1.57")
                .write(toFile: path, atomically: true, encoding: .utf8)
            let mistakes = try ClaimsFile(path).check()
            #expect(
                mistakes.count == 1 && mistakes[0].hasSuffix(":6: value is 1.57, and the data say 1.55"), "\(mistakes)")
        }
    }

    @Test func tooFewValuesAreTold() throws {
        try withClaims(claim("data: data.sqlite\nn: 21\nstatistic: worst\n\(a)\nvalue: 2.10")) { path in
            let mistakes = try ClaimsFile(path).check()
            #expect(mistakes.count == 1 && mistakes[0].contains("12 values, and n is 21"), "\(mistakes)")
            let claims = try ClaimsFile(path)
            #expect(throws: (any Error).self) { try claims.fill() }
        }
    }

    @Test(arguments: [
        ("statistic: worst", "2.10"), ("statistic: p95", "2.05"), ("statistic: share-below\nlimit: 1.3", "25.0"),
        ("statistic: ratio\nsecond: SELECT block, ms FROM run WHERE technique = 'b'", "0.50"),
        ("statistic: difference\nsecond: SELECT block, ms FROM run WHERE technique = 'b'", "-1.55"),
        ("control: SELECT block, ms / 10 FROM run WHERE technique = 'a'", "1.55\nfloor: 0.15"),
    ]) func statisticsAreComputed(_ words: String, _ value: String) throws {
        try withClaims(claim("data: data.sqlite\nn: 12\n\(a)\n\(words)\nvalue: \(value)")) { path in
            let others = try ClaimsFile(path).check().filter { !$0.contains("interval") }
            #expect(others == [])
        }
    }

    @Test(arguments: [
        ("n: 3\nfirst: SELECT 1, 2", "a claim has data, n and first"),
        ("data: none.sqlite\nn: 3\nfirst: SELECT 1, 2", "there are no data"),
        ("data: data.sqlite\nn: 3\nfirst: SELECT nothing", "the query fails"),
        ("data: ../data.sqlite\nn: 3\nfirst: SELECT 1, 2", "a file beside the claims"),
        ("data: data.sqlite\nn: 3\nstatistic: ratio\nfirst: SELECT 1, 2", "ratio compares with second"),
    ]) func mistakesAreNamed(_ words: String, _ reason: String) throws {
        try withClaims(claim(words)) { path in
            do {
                _ = try ClaimsFile(path).check()
                Issue.record("nothing is wrong with \(words)")
            } catch { #expect("\(error)".contains(reason), "\(error)") }
        }
    }

    @Test func theCommittedClaimsHold() throws {
        let claims = try ClaimsFile("docs/results/claims.md")
        #expect(claims.count > 3)
        #expect(try claims.check() == [])
    }

    @Test func numbersAreComparedToTheirDigits() {
        #expect(
            Claim.rounds(1.5499, to: "1.55") && Claim.rounds(1.5451, to: "1.55") && !Claim.rounds(1.544, to: "1.55"))
        #expect(Claim.rounds(1234.4, to: "1234") && !Claim.rounds(1235, to: "1234") && !Claim.rounds(1, to: "one"))
    }
}
