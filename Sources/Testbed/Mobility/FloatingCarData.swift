// SUMO's floating-car output (`sumo --fcd-output`).
import Foundation
import FoundationXML

/// `<fcd-export><timestep time="0.00"><vehicle id="v0" x="1.0" y="2.0" angle="90.0" speed="13.9"/>...`. Persons count like
/// vehicles. Other attributes (lane, slope ...) say nothing here. Coordinates are metres: geographic ones are not
/// known.
enum FloatingCarData {
    static func read(_ bytes: [UInt8], file: String, into users: inout TraceUsers) throws {
        let parser = XMLParser(data: Data(bytes))
        let reader = Reader(file: file, users: users)
        parser.delegate = reader
        parser.shouldResolveExternalEntities = false
        // Its result says nothing: it goes on after mistakes, which it tells its delegate of.
        _ = parser.parse()
        if let mistake = reader.mistake { throw mistake }
        guard reader.begun else { throw InputError(file: file, line: nil, reason: "no <fcd-export> stands in it") }
        users = reader.users
    }

    private final class Reader: NSObject, XMLParserDelegate {
        let file: String
        var users: TraceUsers
        var begun = false
        var mistake: InputError?
        private var time: Double?

        init(file: String, users: TraceUsers) { (self.file, self.users) = (file, users) }

        func parser(
            _ parser: XMLParser, didStartElement element: String, namespaceURI: String?, qualifiedName: String?,
            attributes: [String: String] = [:]
        ) {
            guard mistake == nil else { return }
            do { try begin(element, attributes, line: parser.lineNumber) } catch {
                mistake =
                    error as? InputError ?? InputError(file: file, line: parser.lineNumber, reason: "\(error)")
                parser.abortParsing()
            }
        }

        func parser(_ parser: XMLParser, parseErrorOccurred error: any Error) {
            guard mistake == nil else { return }
            let code = (error as NSError).code
            let why =
                switch code {
                case 5: "it ends early: was it still being written?"
                case 76: "an element is closed that was not opened"
                default: "error \(code) of libxml2"
                }
            mistake = InputError(file: file, line: parser.lineNumber, reason: "this is no XML: \(why)")
        }

        func parser(
            _ parser: XMLParser, didEndElement element: String, namespaceURI: String?, qualifiedName: String?
        ) {
            if element == "timestep" { time = nil }
        }

        private func begin(_ element: String, _ attributes: [String: String], line: Int) throws {
            func number(_ name: String) throws -> Double {
                guard let text = attributes[name] else {
                    throw InputError(file: file, line: line, reason: "<\(element)> has no attribute \(name)")
                }
                guard let value = Double(text) else {
                    throw InputError(file: file, line: line, reason: "\(name) \"\(text)\" is not a number")
                }
                return value
            }
            switch element {
            case "fcd-export" where !begun: begun = true
            case "timestep" where begun && time == nil: time = try number("time")
            case "vehicle" where time != nil, "person" where time != nil:
                guard let user = attributes["id"], !user.isEmpty else {
                    throw InputError(file: file, line: line, reason: "<\(element)> has no attribute id")
                }
                let sample = MobilitySample(
                    time: time!, x: try number("x"), y: try number("y"), heading: try number("angle"),
                    speed: try number("speed"))
                try users.add(sample, of: user, file: file, line: line)
            default:
                throw InputError(
                    file: file, line: line,
                    reason:
                        "<\(element)> does not belong here: <fcd-export>, <timestep> in it, <vehicle> or <person> in that"
                )
            }
        }
    }
}
