// A peer that lies: nothing outside of the tree may be touched, whatever the stream holds.
import Glibc
import LinuxKernel
import Testing

@testable import Containers

@Suite(.enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct HostileStreamTests {
    /// A folder with a file that nobody may touch, beside the root of the tree.
    final class Victim {
        let folder: String
        let receiver: FileTreeReceiver

        init() throws {
            folder = try temporaryFolder()
            try shell("mkdir root precious; echo mine > precious/file; chmod 600 precious/file", in: folder)
            receiver = FileTreeReceiver(root: try TreeRoot(folder: folder + "/root"))
        }
        deinit { try? Folder.remove(folder) }

        func expectUntouched(_ location: SourceLocation = #_sourceLocation) throws {
            #expect(try Folder.names(folder + "/precious") == ["file"], sourceLocation: location)
            #expect(try SmallFile.text(folder + "/precious/file") == "mine", sourceLocation: location)
            var status = stat()
            lstat(folder + "/precious/file", &status)
            #expect(status.st_mode & 0o7777 == 0o600 && status.st_nlink == 1, sourceLocation: location)
        }

        /// Must fail; says how.
        func receive(_ entries: [FileEntry], contents: [[UInt8]] = []) throws -> String {
            var writer = ByteWriter()
            for entry in entries { entry.encode(into: &writer) }
            let stream = Script()
            try TreeProtocol.writeHeader(TreeProtocol.treeMagic, to: stream.input)
            try stream.input.writeBlock(writer.bytes)
            for content in contents { try stream.input.write(content) }
            let error = #expect(throws: (any Error).self) { try receiver.receiveAll(over: stream) }
            return error.map { "\($0)" } ?? "no error"
        }

        func apply(
            removed: [String] = [], renames: [(String, String)] = [], _ items: [(FileEntry, UInt8)] = [],
            contents: [[UInt8]] = []
        ) throws {
            var writer = ByteWriter()
            writer.put(UInt32(removed.count))
            for path in removed { writer.put(Array(path.utf8)) }
            writer.put(UInt32(renames.count))
            for (from, to) in renames {
                writer.put(Array(from.utf8))
                writer.put(Array(to.utf8))
            }
            writer.put(UInt32(items.count))
            for (entry, flags) in items {
                entry.encode(into: &writer)
                writer.put(flags)
            }
            let stream = MemoryStream()
            try TreeProtocol.writeHeader(TreeProtocol.changesMagic, to: stream)
            try stream.writeBlock(writer.bytes)
            for content in contents { try stream.write(content) }
            try receiver.apply(stream.bytes)
        }
    }

    /// Reads a script, swallows answers.
    final class Script: ByteStream {
        let input = MemoryStream()
        func read(into buffer: UnsafeMutableRawBufferPointer) throws { try input.read(into: buffer) }
        func write(_ bytes: UnsafeRawBufferPointer) throws {}
    }

    static func entry(_ path: String, _ kind: FileEntry.Kind = .regular, target: String = "", link: String? = nil)
        -> FileEntry
    {
        var entry = FileEntry(
            path: Array(path.utf8), kind: kind, mode: 0o755, uid: 0, gid: 0,
            modified: Timestamp(seconds: 1, nanoseconds: 0))
        entry.target = Array(target.utf8)
        entry.linkedTo = link.map { Array($0.utf8) }
        return entry
    }
    static let top = entry("", .directory)

    static func content(_ text: String, offset: UInt64 = 0, digest: Digest? = nil, size: UInt64? = nil) -> [UInt8] {
        var writer = ByteWriter()
        writer.put(UInt8(1))
        writer.put(offset)
        writer.put(Array(text.utf8))
        writer.put(UInt8(0))
        writer.put(size ?? offset + UInt64(text.utf8.count))
        writer.put(raw: (digest ?? contentDigest(Array(text.utf8))).bytes)
        return writer.bytes
    }

    @Test(arguments: [
        "../precious/file", "/etc/apus-test", "a/../../precious/x", "..", ".", "a//b", "a/", "/", "a/./b",
        "nul\0name", String(repeating: "x", count: 256), String(repeating: "x/", count: 2047) + "xx",
    ])
    func refusesPaths(path: String) throws {
        let victim = try Victim()
        _ = try victim.receive(
            [Self.top, Self.entry("a", .directory), Self.entry(path)], contents: [Self.content("x")])
        _ = try victim.receive([Self.top, Self.entry("f"), Self.entry("l", link: path)], contents: [Self.content("x")])
        #expect(throws: (any Error).self) { try victim.apply(removed: [path]) }
        #expect(throws: (any Error).self) { try victim.apply(renames: [("f", path)], [(Self.entry("f"), 0)]) }
        #expect(throws: (any Error).self) { try victim.apply(renames: [(path, "f")], [(Self.entry("f"), 0)]) }
        #expect(throws: (any Error).self) { try victim.apply([(Self.entry(path), 1)], contents: [Self.content("x")]) }
        try victim.expectUntouched()
    }

    @Test(arguments: ["../precious", "absolute"]) func followsNoLink(target: String) throws {
        let victim = try Victim()
        let target = target == "absolute" ? victim.folder + "/precious" : target
        let link = Self.entry("link", .symbolicLink, target: target)
        let fileLink = Self.entry("flink", .symbolicLink, target: target + "/file")
        for bad in [
            Self.entry("link/file"), Self.entry("link/new"), Self.entry("link/d", .directory),
            Self.entry("link/s", .symbolicLink, target: "x"), Self.entry("link/p", .fifo),
            Self.entry("hard", link: "link/file"),
        ] {
            let words = try victim.receive([Self.top, link, bad], contents: [Self.content("x")])
            #expect(words.contains("symbolic links"), "\(words)")
        }
        // The links are there now.
        _ = try? victim.apply([(link, 0), (fileLink, 0)])
        var status = stat()
        #expect(lstat(victim.folder + "/root/flink", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
        for (entry, flags) in [
            (Self.entry("link/file"), UInt8(3)), (Self.entry("link/file"), 1), (Self.entry("link/x"), 1),
        ] {
            #expect(throws: (any Error).self) { try victim.apply([(entry, flags)], contents: [Self.content("x")]) }
        }
        #expect(throws: (any Error).self) { try victim.apply(removed: ["link/file"]) }
        #expect(throws: (any Error).self) {
            try victim.apply(renames: [("link/file", "got")], [(Self.entry("got"), 2)])
        }
        // "In place" on a link makes a file of it, and does not write through it.
        try victim.apply([(Self.entry("flink"), 3)], contents: [Self.content("x")])
        #expect(try SmallFile.text(victim.folder + "/root/flink") == "x")
        // Metadata of a link is the link's.
        try victim.apply([(link, 0)])
        // Removing a link leaves what it points to.
        try victim.apply(removed: ["link"])
        try victim.expectUntouched()
        _ = try victim.receive([Self.top, link, Self.entry("link", .directory), Self.entry("link/y")])
        try victim.expectUntouched()
    }

    @Test func refusesAWrongDigest() throws {
        let victim = try Victim()
        let words = try victim.receive(
            [Self.top, Self.entry("f")], contents: [Self.content("x", digest: contentDigest(Array("y".utf8)))])
        #expect(words.contains("digest"), "\(words)")
        let good = try TreePair(store: true) { try put("content", $0 + "/f") }
        var bytes: [UInt8] = []
        _ = try good.sender.manifest()
        try put("Content", good.source + "/f")
        bytes = try #require(try good.sender.changes()).encoded()
        let index = try #require(bytes.firstRange(of: Array("Content".utf8))).lowerBound
        bytes[index] = UInt8(ascii: "X")
        let error = #expect(throws: ContainerError.self) { try good.receiver.apply(bytes) }
        #expect(error?.description.contains("digest") == true)
    }

    @Test func refusesContentsOutOfBounds() throws {
        var limits = TreeLimits()
        limits.fileSize = 1000
        limits.description = 500
        let folder = try temporaryFolder()
        defer { try? Folder.remove(folder) }
        let file = try FileDescriptor(opening: folder + "/f", O_RDWR | O_CREAT)
        func receive(_ bytes: [UInt8]) throws {
            _ = try TreeProtocol.receiveContent(
                from: MemoryStream(bytes), into: file, .new, limits: limits, name: "f")
        }
        let zeros = contentDigest([UInt8](repeating: 0, count: 990) + Array("x".utf8))
        try receive(Self.content("x", offset: 990, digest: zeros))
        #expect(throws: ContainerError.self) { try receive(Self.content("x", offset: 1000)) }
        #expect(throws: ContainerError.self) { try receive(Self.content("x", offset: .max - 1)) }
        // The digest is right: only the size is too large.
        let large = contentDigest(Array("x".utf8) + [UInt8](repeating: 0, count: 1000))
        #expect(throws: ContainerError.self) { try receive(Self.content("x", digest: large, size: 1001)) }
        #expect(throws: ContainerError.self) { try receive(Self.content("x", size: 0)) }
        #expect(throws: ContainerError.self) {
            try receive(Self.content("x").prefix(13).dropLast(4) + [255, 255, 255, 255])
        }
        #expect(throws: ContainerError.self) { try receive([7] + Self.content("x").dropFirst()) }
        let stream = Script()
        try TreeProtocol.writeHeader(TreeProtocol.treeMagic, to: stream.input)
        try stream.input.write([255, 255, 255, 255, 255, 255, 255, 255])
        let receiver = FileTreeReceiver(root: try TreeRoot(folder: folder), limits: limits)
        #expect(throws: ContainerError.self) { try receiver.receiveAll(over: stream) }
    }

    /// Every prefix of a good stream, and every byte of it changed.
    @Test func survivesCutsAndNoise() throws {
        let pair = try TreePair(fill: TreeTests().fill)
        try shell("rm sparse capable; ln hard a/another", in: pair.source)
        try pair.sendAll()
        tick()
        _ = try pair.sendChanges()
        try shell("echo new > new; rm nothing; mv hard moved; echo x >> fresh; mkdir -p x/y", in: pair.source)
        let bytes = try #require(try pair.sender.changes()).encoded()
        let victim = try Victim()
        for count in 0..<bytes.count {
            #expect(throws: (any Error).self) { try victim.receiver.apply(Array(bytes[..<count])) }
        }
        #expect(throws: (any Error).self) { try victim.receiver.apply(bytes + [0]) }
        var generator = SystemRandomNumberGenerator()
        for index in bytes.indices {
            var noisy = bytes
            noisy[index] = UInt8.random(in: 0...255, using: &generator)
            _ = try? victim.receiver.apply(noisy)
        }
        try victim.expectUntouched()
        #expect(try Folder.names(victim.folder).sorted() == ["precious", "root"])
        try pair.receiver.apply(bytes)
        try pair.expectEqual()
    }

    @Test func saysThatThereIsNoSpace() throws {
        let victim = try Victim()
        var entry = Self.entry("f")
        (entry.size, entry.allocated) = (1 << 40, 1 << 40)
        let words = try victim.receive([Self.top, entry])
        #expect(words.contains("MiB free: make room"), "\(words)")
    }

    /// Added up, these sizes are no number.
    @Test func filesLargerThanTheyMayBeAreRefused() throws {
        let victim = try Victim()
        let files = ["a", "b", "c"].map {
            var entry = Self.entry($0)
            (entry.size, entry.allocated) = (UInt64(Int64.max), 0)
            return entry
        }
        let words = try victim.receive([Self.top] + files)
        #expect(words.contains("/a in ") && words.contains("a file may have"), "\(words)")
        try victim.expectUntouched()
    }

    @Test func theSenderTrustsNoAnswer() throws {
        let pair = try TreePair { try put("x", $0 + "/f") }
        for needs: [UInt32] in [[0], [7], [1, 1]] {
            let stream = Script()
            var writer = ByteWriter()
            for number in needs { writer.put(number) }
            try stream.input.writeBlock(writer.bytes)
            let error = #expect(throws: ContainerError.self) { try pair.sender.sendAll(over: stream) }
            #expect(error.map { "\($0)" }?.contains("asks for a file") == true, "\(needs)")
        }
        let stream = Script()
        try stream.input.write([255, 255, 255, 255, 0, 0, 0, 0])
        #expect(throws: ContainerError.self) { try pair.sender.sendAll(over: stream) }
    }
}
