// Large files: of what changes in them only that travels, and holes are neither read nor sent.
import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Containers

@Suite(.enabled(if: geteuid() == 0), .timeLimit(.minutes(1)))
struct LargeFileTests {
    /// Bytes that this thread's process has read by system calls.
    private func bytesRead() throws -> Int {
        let line = try SmallFile.text("/proc/self/io").split(separator: "\n").first { $0.hasPrefix("rchar:") }
        return Int(line!.dropFirst(7)) ?? 0
    }

    private func content(_ path: String) throws -> [UInt8] { try SmallFile.read(path) }

    private func put(_ byte: UInt8, _ file: FileDescriptor, at offset: UInt64) throws {
        try FileContent.write([byte], file, at: offset, name: "large")
    }

    /// A pair with a file of four megabytes that is open for writing.
    private func pair(followed: Bool, in folder: String? = nil) throws -> (TreePair, FileDescriptor) {
        let pair = try TreePair(in: folder) {
            try shell("head -c 4194304 /dev/urandom > large; echo small > small", in: $0)
        }
        let file = try FileDescriptor(opening: pair.source + "/large", O_RDWR)
        if followed { pair.sender.writes = try FileWrites() }
        try pair.sendAll(written: [inode(pair.source + "/large")])
        tick()
        try pair.sendChanges()
        return (pair, file)
    }

    @Test(arguments: [false, true]) func onlyBlocksThatChangedAreSent(followed: Bool) throws {
        let (pair, file) = try pair(followed: followed)
        func expectChange(of atMost: UInt64, _ what: Comment) throws {
            let changes = try #require(try pair.sender.changes(), what)
            let report = try pair.receiver.apply(changes.encoded())
            #expect(report.contentBytes <= atMost, what)
            #expect(try content(pair.source + "/large") == content(pair.target + "/large"), what)
        }
        let block = BlockDigests.size
        try put(1, file, at: 1_000_000)
        try expectChange(of: block, "one byte")
        try put(1, file, at: block * 7 - 1)
        try put(2, file, at: block * 7)
        try expectChange(of: 2 * block, "both sides of a border")
        try put(1, file, at: 5_000_000)
        try expectChange(of: block, "a byte beyond the end")
        ftruncate(file.number, 3_000_001)
        try expectChange(of: block, "cut")
        ftruncate(file.number, 2_000_000)
        ftruncate(file.number, 4_000_000)
        try expectChange(of: block, "cut and made longer again")
        try check(clx_punch_hole(file.number, 300_000, 500_000), "making a hole")
        try expectChange(of: 2 * block, "a hole")
        try shell("printf x >> large; mv large other; ln other large", in: pair.source)
        try put(3, file, at: 12)
        try pair.sendChanges()
        try pair.expectEqual()
        try shell("rm other", in: pair.source)
        try pair.sendChanges()
        try put(4, file, at: 13)
        try shell("mv large renamed; echo another > large", in: pair.source)
        try pair.sendChanges()
        try pair.expectEqual()
    }

    /// A change of a file with several names makes the sender look at everything besides what was touched.
    @Test func aFileThatBothWalksFindChangedKeepsItsContent() throws {
        let pair = try TreePair { try shell("echo one > one; ln one two", in: $0) }
        try pair.sendAll()
        tick()
        try pair.sendChanges()
        try shell("truncate -s 200000 large; echo more >> one", in: pair.source)
        let file = try FileDescriptor(opening: pair.source + "/large", O_RDWR)
        var walks = 0
        pair.sender.whileWorking = {
            walks += 1
            if walks == 2 { try FileContent.write([1, 2, 3], file, at: 150_000, name: "large") }
        }
        try pair.sendChanges()
        #expect(walks >= 2)
        pair.sender.whileWorking = {}
        try pair.sendChanges()
        try pair.expectEqual()
    }

    /// Not a second reading of the whole file: what was written to is known.
    @Test func aFileThatIsFollowedIsNotReadAgain() throws {
        let (pair, file) = try pair(followed: true)
        try put(1, file, at: 1_000_000)
        let before = try bytesRead()
        let changes = try #require(try pair.sender.changes())
        let bytes = try changes.encoded()
        #expect(try bytesRead() - before < 2 * Int(BlockDigests.size))
        try pair.receiver.apply(bytes)
        try pair.expectEqual()
    }

    /// Random writes of every kind while the file is being sent again and again: the last pass is exact.
    @Test(arguments: [false, true]) func whatIsWrittenMeanwhileIsNotMissed(followed: Bool) throws {
        let (pair, file) = try pair(followed: followed)
        let number = file.number
        let thread = try Thread {
            var generator = SystemRandomNumberGenerator()
            for turn in 0..<4000 {
                let offset = Int.random(in: 0..<4_194_304, using: &generator)
                switch turn % 50 {
                case 0: ftruncate(number, offset)
                case 1: _ = clx_punch_hole(number, UInt64(offset), 100_000)
                default:
                    var word = generator.next()
                    pwrite(number, &word, 8, offset)
                }
                if turn % 20 == 0 { usleep(200) }
            }
        }
        for _ in 0..<60 {
            try pair.sendChanges()
            usleep(1000)
        }
        thread.join()
        try pair.sendChanges()
        #expect(try content(pair.source + "/large") == content(pair.target + "/large"))
        try pair.expectEqual()
    }

    /// Nothing tells of stores through a mapping, so a file that was mapped is compared as a whole from then on.
    @Test func storesThroughAMappingAreNotMissed() throws {
        let (pair, file) = try pair(followed: true)
        let identity = try Stamp(file, "").identity
        #expect(pair.sender.writes!.take(identity) == [])
        let size = 4_194_304
        let memory = try #require(mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0))
        let seen = memory.load(fromByteOffset: 3_000_000, as: UInt8.self)
        memory.storeBytes(of: ~seen, toByteOffset: 3_000_000, as: UInt8.self)
        munmap(memory, size)
        #expect(pair.sender.writes!.take(identity) == nil)
        // The file is still open, so it is looked at, and its time tells.
        try pair.sendChanges()
        try pair.expectEqual()
    }

    /// Where the file system does not tell what is written, files are compared.
    @Test func onATmpfsFilesAreCompared() throws {
        let (pair, file) = try pair(followed: true, in: "/dev/shm")
        var status = stat()
        fstat(file.number, &status)
        #expect(!pair.sender.writes!.follow(status, folder: pair.root.descriptor))
        try put(1, file, at: 1_000_000)
        let report = try pair.receiver.apply(try #require(try pair.sender.changes()).encoded())
        #expect(report.contentBytes <= BlockDigests.size)
        #expect(pair.sender.compared.map(\.name) == ["/large"])
        try pair.expectEqual()
        tick()
        try pair.sendChanges()
        #expect(pair.sender.compared.isEmpty)
    }

    /// A terabyte of holes takes no time: to describe, to send, to store, to compare, to receive.
    @Test func holesAreNeitherReadNorSent() throws {
        let pair = try TreePair(store: true) {
            try shell(
                "truncate -s 1T sparse; printf end | dd of=sparse bs=1 seek=700G conv=notrunc status=none", in: $0)
        }
        let file = try FileDescriptor(opening: pair.source + "/sparse", O_RDWR)
        let report = try pair.sendAll(written: [inode(pair.source + "/sparse")])
        #expect(report.contentBytes <= 4096)
        #expect(try pair.sendAll().cached == 1)
        try put(1, file, at: 900 << 30)
        try pair.sendChanges()
        try check(clx_punch_hole(file.number, 700 << 30, 4096), "making a hole")
        try pair.sendChanges()
        let target = try FileDescriptor(opening: pair.target + "/sparse", O_RDONLY)
        #expect(FileContent.extents(file, in: 0..<1 << 40) == FileContent.extents(target, in: 0..<1 << 40))
        let cache = DigestCache(file: nil)
        #expect(try cache.digest(of: file, name: "").0 == cache.digest(of: target, name: "").0)
    }

    /// Every long step asks again and again whether it shall go on.
    @Test func longStepsEndWhenTold() throws {
        struct Ended: Error {}
        let pair = try TreePair { try shell("head -c 20000000 /dev/urandom > large", in: $0) }
        pair.sender.whileWorking = { throw Ended() }
        #expect(throws: Ended.self) { try pair.sender.manifest() }
        var calls = 0
        pair.sender.whileWorking = { calls += 1 }
        pair.receiver.whileWorking = { throw Ended() }
        #expect(throws: (any Error).self) { try pair.sendAll() }
        #expect(calls > 10)
        let file = try FileDescriptor(opening: pair.source + "/large", O_RDONLY)
        #expect(throws: Ended.self) {
            _ = try DigestCache(file: nil).digest(of: file, name: "large") { throw Ended() }
        }
    }

    /// Only what the kernel says was touched is looked at.
    @Test func aWalkLooksOnlyAtWhatWasTouched() throws {
        let pair = try TreePair { folder in
            try shell(
                "for d in 1 2 3 4 5; do mkdir -p $d/in; for f in $(seq 250); do echo $f > $d/in/$f; done; done",
                in: folder)
        }
        try pair.sendAll()
        try pair.sendChanges()
        #expect(pair.sender.scanner.looks == 0)
        try shell(
            "echo x >> 3/in/77; mv 4/in/5 2/in/moved; mkdir 5/new; echo n > 5/new/n; chmod 700 1", in: pair.source)
        let summary = try pair.sendChanges()
        #expect(summary.contains("renamed /4/in/5 to /2/in/moved") && !summary.contains("content /2/in/moved"))
        #expect(summary.contains("content /3/in/77") && summary.contains("content /5/new/n"), "\(summary)")
        try pair.expectEqual()
        try shell("echo y >> 3/in/77; rm 4/in/6; rm -r 5/new; mkdir 5/new; echo m > 5/new/m", in: pair.source)
        try pair.sendChanges()
        #expect(pair.sender.scanner.looks < 20, "\(pair.sender.scanner.looks)")
        try shell("echo later > 5/new/later; rm -r 3/in; mv 1/in 3/in; echo x > 3/in/12", in: pair.source)
        try pair.sendChanges()
        try pair.expectEqual()
        // More events than the queue holds: everything is looked at.
        let queue = Int(try SmallFile.text("/proc/sys/fs/inotify/max_queued_events"))!
        for turn in 0...queue / 2 {
            chmod(pair.source + "/3/in/12", turn % 2 == 0 ? 0o600 : 0o644)
            chmod(pair.source + "/3/in/11", turn % 2 == 0 ? 0o600 : 0o644)
        }
        try shell("echo z >> 5/in/12; mkdir 6; echo > 6/f", in: pair.source)
        try pair.sendChanges()
        #expect(pair.sender.scanner.looks > 1000)
        try pair.expectEqual()
    }
}
