// An address space as data: what is mapped where, and which of it can be carried.
import CLinux
import Glibc
import LinuxKernel
import Memory

/// MADV_* advice that an area was given.
struct AreaAdvice: OptionSet {
    let rawValue: UInt32
    static let hugePage = AreaAdvice(rawValue: 1), noHugePage = AreaAdvice(rawValue: 2)
    static let dontDump = AreaAdvice(rawValue: 4), dontFork = AreaAdvice(rawValue: 8)
    static let wipeOnFork = AreaAdvice(rawValue: 16)
    static let random = AreaAdvice(rawValue: 32), sequential = AreaAdvice(rawValue: 64)
    static let mergeable = AreaAdvice(rawValue: 128)

    /// As the VmFlags line of smaps names it, with the madvise(2) arguments that give and take it. Nothing takes
    /// MADV_HUGEPAGE and MADV_NOHUGEPAGE but the other.
    private static let table: [(advice: AreaAdvice, flag: Substring, give: UInt64, take: UInt64?)] = [
        (.random, "rr", 1, 0), (.sequential, "sr", 2, 0), (.dontFork, "dc", 10, 11), (.mergeable, "mg", 12, 13),
        (.hugePage, "hg", 14, nil), (.noHugePage, "nh", 15, nil), (.dontDump, "dd", 16, 17),
        (.wipeOnFork, "wf", 18, 19),
    ]

    init(rawValue: UInt32) { self.rawValue = rawValue }
    init(flags: Set<Substring>) {
        self = Self.table.reduce(into: []) { if flags.contains($1.flag) { $0.insert($1.advice) } }
    }

    /// The madvise(2) arguments that lead here from other advice.
    func madvise(after other: AreaAdvice = []) -> [UInt64] {
        Self.table.compactMap { other.contains($0.advice) && !contains($0.advice) ? $0.take : nil }
            + Self.table.compactMap { contains($0.advice) ? $0.give : nil }
    }
}

/// Reads the layout of one process again and again.
public final class AddressSpaceReader {
    private let pid: Int32
    private let maps: MemoryMapReader
    private var flags: [AreaFlags] = []
    private var flagsAreOld = false
    /// Which bytes of each shared memory object are mapped, as far as they have been seen.
    private var shared: [UInt64: [AddressRange]] = [:]
    /// For each mapped file that was looked at: does its path lead to that file?
    private var verified: [MappedFile: Bool] = [:]
    /// The engine's own mapping in the process, which is none of the program's.
    public var excluded: AddressRange?
    /// As of the last `refresh`.
    public private(set) var areas: [MemoryArea] = []
    public private(set) var obstacles: [Obstacle] = []
    /// Grows with every change of the layout.
    public private(set) var generation: UInt64 = 0

    private struct MappedFile: Hashable { var device, inode: UInt64, path: String }
    private struct AreaFlags: Equatable {
        var range: AddressRange
        var advice: AreaAdvice
        var locked, noReserve, mayWrite, growsDown, deviceMemory: Bool
        /// What keeps it from being carried.
        var refused: String?
    }

    public init(pid: Int32) throws(KernelError) {
        self.pid = pid
        maps = try MemoryMapReader(pid: pid)
    }

    /// The maps as last read.
    public var entries: [MapEntry] { maps.entries }

    /// Reads the layout; true if it changed. Advice (MADV_*), which only the slow smaps file shows, is read again
    /// unless `quick`: a range that is new then takes over what is known of the range around it. With `advice` it is
    /// read even if the layout is the same.
    @discardableResult
    public func refresh(quick: Bool = false, advice: Bool = false) throws -> Bool {
        let changed = try maps.refresh()
        let known = flags
        if advice || !quick && (changed || flagsAreOld) {
            flags = try readFlags()
            flagsAreOld = false
        } else if changed {
            flagsAreOld = true
        }
        guard changed || flags != known else { return false }
        generation += 1
        areas = []
        tracked = []
        obstacles = []
        shared = [:]
        let entries = maps.entries
        for (index, entry) in entries.enumerated() {
            if excluded?.overlaps(entry.range) == true { examine(injected: entry) } else { add(entry) }
            if let last = tracked.indices.last, tracked[last].range == entry.range {
                let before = index > 0 ? entries[index - 1].range.upperBound : entry.range.lowerBound
                let after = index + 1 < entries.count ? entries[index + 1].range.lowerBound : entry.range.upperBound
                tracked[last].surroundings = before..<max(entry.range.upperBound, min(after, Self.end))
            }
        }
        return true
    }

    /// Where a program's address space ends (TASK_SIZE); [vsyscall] lies beyond.
    private static let end: UInt64 = 1 << 47 - 4096

    /// The areas whose pages are carried.
    public private(set) var tracked: [TrackedArea] = []

    /// The files that are mapped, each once.
    public var files: [String] {
        Set(areas.filter { $0.kind == .privateFile || $0.kind == .sharedFile }.map(\.path)).sorted()
    }

    /// Whether memory to come is locked shows in what was mapped last, by the engine.
    private func examine(injected entry: MapEntry) {
        guard flags(of: entry.range)?.locked == true else { return }
        obstruct(entry, "memory to come is locked (mlockall with MCL_FUTURE), not carried yet")
    }

    private func add(_ entry: MapEntry) {
        var area = MemoryArea()
        area.start = entry.range.lowerBound
        area.end = entry.range.upperBound
        area.protection = entry.protection
        area.offset = entry.offset
        let known = flags(of: entry.range)
        area.advice = known?.advice.rawValue ?? 0
        area.locked = known?.locked ?? false
        area.noReserve = known?.noReserve ?? false
        if let what = known?.refused { obstruct(entry, "\(what), not carried yet") }
        switch entry.name {
        case "[vdso]": area.kind = .vdso
        case "[vvar]", "[vvar_vclock]": area.kind = .vvar
        case "[vsyscall]": area.kind = .vsyscall
        case "[stack]": area.kind = .stack
        case _ where entry.inode == 0 && entry.device == 0 && !entry.shared:
            area.kind = known?.growsDown == true ? .stack : .anonymous
            area.offset = 0
            area.name = entry.givenName ?? ""
        case _ where entry.shared && (entry.name == "/dev/zero (deleted)" || entry.givenName != nil):
            area.kind = .sharedAnonymous
            area.name = entry.givenName ?? ""
            area.object = entry.inode
            // Pieces of one object become objects of their own, which is the same as long as no page shows twice.
            let pages = entry.offset..<entry.offset + UInt64(entry.range.count)
            if shared[entry.inode, default: []].contains(where: { $0.overlaps(pages) }) {
                obstruct(entry, "shared memory that is mapped twice, not carried yet")
            }
            shared[entry.inode, default: []].append(pages)
        default: addFile(entry, &area, known)
        }
        if area.kind == .vvar || area.kind == .vdso { area.name = entry.name }
        areas.append(area)
        switch area.kind {
        case .anonymous, .stack: tracked.append(TrackedArea(entry.range, .anonymous))
        case .privateFile: tracked.append(TrackedArea(entry.range, .privateFile))
        case .sharedAnonymous: tracked.append(TrackedArea(entry.range, .sharedAnonymous, offset: area.offset))
        default: break
        }
    }

    private func addFile(_ entry: MapEntry, _ area: inout MemoryArea, _ known: AreaFlags?) {
        area.kind = entry.shared ? .sharedFile : .privateFile
        area.path = entry.name
        if known?.deviceMemory == true || entry.name.hasPrefix("/dev/") || !entry.name.hasPrefix("/") {
            return obstruct(entry, "mapping of \(entry.name), not carried yet")
        }
        // What was no text has been replaced.
        if entry.name.unicodeScalars.contains("\u{fffd}") {
            return obstruct(entry, "mapping of a file whose name is not UTF-8, \(entry.name), not carried yet")
        }
        let isAtItsPath = isSame(MappedFile(device: entry.device, inode: entry.inode, path: entry.name))
        // A file may also have a name that ends so.
        if !isAtItsPath, entry.name.hasSuffix(" (deleted)") {
            return obstruct(entry, "mapping of a deleted file, \(entry.name)")
        }
        if entry.shared, entry.writable || known?.mayWrite == true {
            return obstruct(entry, "shared writable mapping of \(entry.name), not carried yet")
        }
        if !isAtItsPath {
            obstruct(entry, "mapping of \(entry.name), which is not that file in the container's root")
        }
    }

    private func obstruct(_ entry: MapEntry, _ reason: String) {
        let range = "0x\(String(entry.range.lowerBound, radix: 16))-0x\(String(entry.range.upperBound, radix: 16))"
        obstacles.append(Obstacle(pid: pid, process: processName(pid), subject: "memory \(range)", reason: reason))
    }

    /// Is the file at this path in the container's root the one that is mapped?
    private func isSame(_ file: MappedFile) -> Bool {
        if let known = verified[file] { return known }
        // Overlay file systems show another device number in maps than in stat: the inode decides there.
        let found = FileIdentity.status(of: file.path, inRootOf: pid)
        let isSame = found.map { UInt64($0.st_ino) == file.inode } ?? false
        verified[file] = isSame
        return isSame
    }

    // ---- smaps ---------------------------------------------------------------------------------------------

    private func flags(of range: AddressRange) -> AreaFlags? {
        var low = 0, high = flags.count
        while low < high {
            let middle = (low + high) / 2
            if flags[middle].range.upperBound <= range.lowerBound { low = middle + 1 } else { high = middle }
        }
        return low < flags.count && flags[low].range.lowerBound <= range.lowerBound ? flags[low] : nil
    }

    private static let refused: [(flag: Substring, what: String)] = [
        ("sl", "a sealed mapping (mseal)"), ("dp", "a droppable mapping (MAP_DROPPABLE)"), ("ss", "a shadow stack"),
    ]

    /// Reads bytes, not characters: two dozen lines an area, thousands of areas.
    private func readFlags() throws(KernelError) -> [AreaFlags] {
        let text = try SmallFile.read("/proc/\(pid)/smaps")
        var result: [AreaFlags] = []
        var range: AddressRange = 0..<0
        var key: String?
        text.withUnsafeBufferPointer { bytes in
            var at = 0
            while at < bytes.count {
                let end =
                    memchr(bytes.baseAddress! + at, 10, bytes.count - at).map {
                        $0 - UnsafeMutableRawPointer(mutating: bytes.baseAddress!)
                    } ?? bytes.count
                let line = UnsafeBufferPointer(rebasing: bytes[at..<end])
                at = end + 1
                switch line.first {
                case UInt8(ascii: "V")? where line.starts(with: "VmFlags:".utf8):
                    let names = Set(String(decoding: line.dropFirst(8), as: UTF8.self).split(separator: " "))
                    result.append(
                        AreaFlags(
                            range: range, advice: AreaAdvice(flags: names), locked: names.contains("lo"),
                            noReserve: names.contains("nr"),
                            mayWrite: names.contains("mw"), growsDown: names.contains("gd"),
                            deviceMemory: names.contains("io") || names.contains("pf") || names.contains("ht"),
                            refused: Self.refused.first { names.contains($0.flag) }?.what ?? key))
                    key = nil
                case UInt8(ascii: "P")? where line.starts(with: "ProtectionKey:".utf8):
                    key = line.suffix(2).elementsEqual(" 0".utf8) ? nil : "a memory protection key"
                case let first? where first < 65 || first > 90: range = Self.bounds(line)
                default: break
                }
            }
        }
        return result
    }

    /// "START-END ...", hexadecimal.
    private static func bounds(_ line: UnsafeBufferPointer<UInt8>) -> AddressRange {
        var numbers: [UInt64] = [0]
        for byte in line {
            switch byte {
            case UInt8(ascii: "-"): numbers.append(0)
            case UInt8(ascii: " "):
                return numbers.count == 2 && numbers[0] <= numbers[1] ? numbers[0]..<numbers[1] : 0..<0
            default: numbers[numbers.count - 1] = numbers.last! << 4 | UInt64(byte <= 57 ? byte &- 48 : byte &- 87)
            }
        }
        return 0..<0
    }
}

extension MapEntry {
    /// The name that the program gave to anonymous memory (PR_SET_VMA_ANON_NAME).
    fileprivate var givenName: String? {
        for prefix in ["[anon:", "[anon_shmem:"] where name.hasPrefix(prefix) && name.hasSuffix("]") {
            return String(name.dropFirst(prefix.count).dropLast())
        }
        return nil
    }
}

/// The command name of a process for a person to read, or "?": what would not stay in its line is replaced.
public func processName(_ pid: Int32) -> String {
    let name = (try? SmallFile.text("/proc/\(pid)/comm")) ?? "?"
    return String(
        String.UnicodeScalarView(
            name.unicodeScalars.map { $0.properties.generalCategory == .control ? "\u{fffd}" : $0 }))
}

extension MemoryArea {
    public var range: AddressRange { start..<end }

    /// Do both show the same memory at the same addresses?
    func continues(_ other: MemoryArea) -> Bool {
        guard kind == other.kind || (isPrivateAnonymous && other.isPrivateAnonymous) else { return false }
        switch kind {
        case .anonymous, .stack: return noReserve == other.noReserve
        case .privateFile, .sharedFile: return path == other.path && start &- offset == other.start &- other.offset
        case .sharedAnonymous: return object == other.object && start &- offset == other.start &- other.offset
        default: return start == other.start && end == other.end
        }
    }
    var isPrivateAnonymous: Bool { kind == .anonymous || kind == .stack }
}
