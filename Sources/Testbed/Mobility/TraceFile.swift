// Traces from files: which reader, and what every trace must keep to, whoever wrote it.
import Glibc
import LinuxKernel

extension MobilityTrace {
    /// Reads the users of a file: `.xml` is SUMO's floating-car output, `.csv` has a line a step. Of a folder: those of
    /// all its files, by name.
    ///
    /// - Throws: `InputError` with file, line and reason.
    public static func read(_ path: String) throws -> [MobilityTrace] {
        var users = TraceUsers()
        var info = stat()
        if stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR {
            let names = fileNames(path).filter { $0.hasSuffix(".xml") || $0.hasSuffix(".csv") }.sorted()
            for name in names { try read("\(path)/\(name)", into: &users) }
        } else {
            try read(path, into: &users)
        }
        return try users.traces(file: path)
    }

    private static func read(_ path: String, into users: inout TraceUsers) throws {
        let bytes: [UInt8]
        do { bytes = try SmallFile.read(path) } catch {
            throw InputError(file: path, line: nil, reason: "the trace cannot be read: \(error)")
        }
        if path.hasSuffix(".xml") {
            try FloatingCarData.read(bytes, file: path, into: &users)
        } else if path.hasSuffix(".csv") {
            try TraceCSV.read(bytes, file: path, into: &users)
        } else {
            throw InputError(
                file: path, line: nil, reason: "a trace is an .xml (SUMO floating-car output) or a .csv file")
        }
    }
}

/// The users of one or several files while they are read.
struct TraceUsers {
    /// More than this many seconds from one step to the next and nobody knows where the user was.
    static let longestStep = 10.0

    private var order: [String] = []
    private var samples: [String: [MobilitySample]] = [:]
    /// Where a user's last step stands.
    private var places: [String: (file: String, line: Int)] = [:]

    mutating func add(_ sample: MobilitySample, of user: String, file: String, line: Int) throws {
        func mistake(_ reason: String) -> InputError { InputError(file: file, line: line, reason: reason) }
        var sample = sample
        for (name, value) in [
            ("time", sample.time), ("x", sample.x), ("y", sample.y), ("heading", sample.heading),
            ("speed", sample.speed),
        ] where !value.isFinite || abs(value) > 1e9 {
            throw mistake("\(name) \(value) of user \(user) is no place in a trace")
        }
        guard sample.speed >= 0 else { throw mistake("speed \(plain(sample.speed)) of user \(user) is below 0") }
        sample.heading = MobilityTrace.normalised(sample.heading)
        if let last = samples[user]?.last {
            if let place = places[user], place.file != file {
                throw mistake("user \(user) stands in \(place.file) too")
            }
            guard sample.time > last.time else {
                throw mistake("time \(plain(sample.time)) s of user \(user) is not after \(plain(last.time)) s")
            }
            guard sample.time - last.time <= Self.longestStep else {
                throw mistake(
                    "user \(user) is missing from \(plain(last.time)) s to \(plain(sample.time)) s: at most "
                        + "\(plain(Self.longestStep)) s may lie between two steps")
            }
        } else {
            order.append(user)
        }
        samples[user, default: []].append(sample)
        places[user] = (file, line)
    }

    func traces(file: String) throws -> [MobilityTrace] {
        guard !order.isEmpty else { throw InputError(file: file, line: nil, reason: "there is no user in it") }
        return try order.map { user in
            guard let steps = samples[user], steps.count >= 2 else {
                let place = places[user]
                throw InputError(
                    file: place?.file ?? file, line: place?.line,
                    reason: "user \(user) has one step only: two make a way")
            }
            return MobilityTrace(user: user, samples: steps)
        }
    }
}
