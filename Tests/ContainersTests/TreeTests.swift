// Trees of files: there and back, what changed, and streams that lie.
import CLinux
import Glibc
import LinuxKernel
import Synchronization
import Testing

@testable import Containers

/// Two folders and the pair that carries one to the other.
final class TreePair {
    let folder: String
    var source: String { folder + "/source" }
    var target: String { folder + "/target" }
    let sender: FileTreeSender
    let receiver: FileTreeReceiver
    let root: TreeRoot

    init(
        store: Bool = false, excluding: Set<TreePath> = [], in place: String? = nil,
        fill: (String) throws -> Void = { _ in }
    ) throws {
        folder = try place.map { "\($0)/apus-test-\(getpid())-\(UInt32.random(in: 0...999_999))" } ?? temporaryFolder()
        try Folder.create(folder)
        try Folder.create(folder + "/source")
        try Folder.create(folder + "/target")
        try fill(folder + "/source")
        root = try TreeRoot(folder: folder + "/source")
        sender = FileTreeSender(root: root, excluding: excluding, cache: DigestCache(file: nil))
        receiver = FileTreeReceiver(
            root: try TreeRoot(folder: folder + "/target"),
            store: try store ? ContentStore(folder: folder + "/store", digests: DigestCache(file: nil)) : nil)
    }
    deinit { try? Folder.remove(folder) }

    /// Both sides over a socket pair, the sender on a thread of its own.
    @discardableResult func sendAll(written: Set<UInt64> = []) throws -> TreeReport {
        let (a, b) = try socketPair()
        let receiver = Unchecked(receiver)
        let failure = Unchecked<Box<(any Error)?>>(Box(nil))
        let thread = try Thread {
            do { try receiver.value.receiveAll(over: DescriptorStream(b)) } catch { failure.value.value = error }
            shutdown(b.number, Int32(SHUT_RDWR))
        }
        let result = Result { try sender.sendAll(over: DescriptorStream(a), written: written) }
        shutdown(a.number, Int32(SHUT_RDWR))
        thread.join()
        if let error = failure.value.value { throw error }
        return try result.get()
    }

    /// Carries what changed; the changes' summary.
    @discardableResult func sendChanges(suspects: Set<UInt64> = []) throws -> [String] {
        guard let changes = try sender.changes(suspects: suspects) else { return [] }
        try receiver.apply(changes.encoded())
        return changes.summary
    }

    /// As find and sha256sum see them.
    func expectEqual(_ location: SourceLocation = #_sourceLocation) throws {
        let (here, there) = (try listing(source), try listing(target))
        let differences = Set(here).symmetricDifference(there).sorted()
        #expect(here == there, "\(differences)", sourceLocation: location)
        #expect(try manifest(source) == manifest(target), sourceLocation: location)
    }
}

final class Box<T> {
    var value: T
    init(_ value: T) { self.value = value }
}
struct Unchecked<T>: @unchecked Sendable {
    let value: T
    init(_ value: T) { self.value = value }
}

/// A pthread to wait for.
struct Thread {
    private var thread = pthread_t()
    init(_ body: @escaping @Sendable () -> Void) throws {
        let box = Unmanaged.passRetained(Box(body))
        try check(
            -pthread_create(
                &thread, nil,
                {
                    Unmanaged<Box<@Sendable () -> Void>>.fromOpaque($0!).takeRetainedValue().value()
                    return nil
                }, box.toOpaque()), "starting a thread")
    }
    func join() { pthread_join(thread, nil) }
}

func socketPair() throws -> (FileDescriptor, FileDescriptor) {
    var pair: [Int32] = [0, 0]
    try checkC(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair), "making a socket pair")
    return (FileDescriptor(owning: pair[0]), FileDescriptor(owning: pair[1]))
}

func listing(_ folder: String) throws -> [Substring] {
    try Subprocess.run(
        [
            "sh", "-c",
            "find . ! -type d -printf '%P|%y|%m|%U|%G|%s|%T@|%l|%n\\n' -o -printf '%P|%y|%m|%U|%G|%T@\\n';"
                + "find . -type f -exec sha256sum {} +",
        ], workingDirectory: folder
    ).text.split(separator: "\n").sorted()
}

func manifest(_ folder: String) throws -> [FileEntry] {
    try FileTreeSender(root: TreeRoot(folder: folder)).manifest().map {
        var entry = $0
        entry.allocated = 0
        if entry.kind == .directory { entry.size = 0 }
        return entry
    }
}

func put(_ content: String, _ path: String) throws {
    let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_TRUNC)
    try FileContent.write(Array(content.utf8)[...], file, at: 0, name: path)
}

/// The digest of a file with this content.
func contentDigest(_ content: String) -> Digest { contentDigest(Array(content.utf8)) }
func contentDigest(_ content: [UInt8]) -> Digest {
    var hasher = ContentHasher()
    content.withUnsafeBytes { hasher.update($0, at: 0) }
    return hasher.finish(size: UInt64(content.count)).0
}

func shell(_ script: String, in folder: String) throws {
    try Subprocess.run(["sh", "-ec", script], workingDirectory: folder)
}

func inode(_ path: String) throws -> UInt64 {
    var status = stat()
    try checkC(lstat(path, &status), "examining \(path)")
    return UInt64(status.st_ino)
}

/// Waits until nothing written before is racy. One tick is not enough: since Linux 6.13 a file's time may come from the
/// fine clock, which the coarse one follows two ticks behind on an idle machine.
func tick() {
    var fine = timespec()
    clock_gettime(CLOCK_REALTIME, &fine)
    while Stamp.now() <= Timestamp(fine) { usleep(500) }
}

@Suite(.enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct TreeTests {
    static let everything = """
        mkdir -p a/b 'with space' empty; echo hello > a/b/file; printf '' > nothing; chmod 4711 a/b/file
        ln -s /etc/passwd absolute; ln -s ../../outside relative; ln a/b/file hard; ln hard 'with space/third'
        mkfifo -m 600 fifo; mknod null c 1 3; mknod disk b 7 0; chown 1000:1001 a; chown -h 5:6 absolute
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
        printf 'x' > "$(printf 'bad\\377name')"; touch -d '2001-02-03 04:05:06.123456789' empty a/b/file
        truncate -s 50M sparse; printf 'end' >> sparse; printf 'start' | dd of=sparse conv=notrunc status=none
        cp /bin/true capable; chmod 1777 'with space'; chmod 711 .
        """

    func fill(_ folder: String) throws {
        try shell(Self.everything, in: folder)
        // struct vfs_cap_data, revision 2: CAP_NET_RAW permitted and effective.
        let capability: [UInt8] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        try check(clx_lsetxattr(folder + "/capable", "security.capability", capability, 20), "setting a capability")
        try check(clx_lsetxattr(folder + "/capable", "user.note", "hi there", 8), "setting an attribute")
        try check(clx_lsetxattr(folder + "/a", "user.dir", "d", 1), "setting an attribute")
    }

    @Test(arguments: [false, true]) func carriesEverything(withStore: Bool) throws {
        let pair = try TreePair(store: withStore, fill: fill)
        // What is there already goes.
        try shell("mkdir old; echo old > old/file; ln -s old hard", in: pair.target)
        let report = try pair.sendAll()
        try pair.expectEqual()
        #expect(report.contents > 0 && report.contentBytes < 1 << 20, "\(report)")
        // Hard links are links, holes are holes.
        #expect(try inode(pair.target + "/hard") == inode(pair.target + "/with space/third"))
        var status = stat()
        stat(pair.target + "/sparse", &status)
        #expect(status.st_blocks * 512 < 1 << 20)
        let manifest = try manifest(pair.target)
        #expect(manifest.first { $0.path == Array("capable".utf8) }?.attributes.count == 2)
        #expect(manifest.contains { $0.path == Array("bad".utf8) + [255] + Array("name".utf8) })
        // Nothing more to say, though all of it is racy; and still the same when it is not.
        #expect(try pair.sendChanges() == [])
        tick()
        #expect(try pair.sendChanges() == [])
        // Once more: with a store no content goes over.
        let again = try TreePair(store: true, fill: fill)
        try again.sendAll()
        let second = try again.sendAll()
        #expect(second.contents == 0 && second.cached == report.contents, "\(second)")
        try again.expectEqual()
    }

    @Test func theStoreIsNotTheTree() throws {
        let pair = try TreePair(store: true) { try put("hello", $0 + "/f") }
        try pair.sendAll()
        let name = contentDigest("hello").description
        #expect(try inode(pair.target + "/f") != inode("\(pair.folder)/store/\(name)"))
        // A damaged content is not used.
        try put("other", "\(pair.folder)/store/\(name)")
        #expect(try pair.sendAll().contents == 1)
        try pair.expectEqual()
        #expect(try SmallFile.text("\(pair.folder)/store/\(name)") == "hello")
        try ContentStore(folder: pair.folder + "/store", digests: DigestCache(file: nil)).prune(toBytes: 0)
        #expect(try Folder.names(pair.folder + "/store").isEmpty)
    }

    @Test func carriesChanges() throws {
        let pair = try TreePair(fill: fill)
        try pair.sendAll()
        tick()
        #expect(try pair.sendChanges() == [])
        let opened = try inode(pair.target + "/nothing")
        try shell(
            """
            echo more >> nothing; rm -r empty; mkdir new; echo n > new/n; mkdir new/deep; chmod 600 a/b/file
            rm relative; mkdir relative; echo r > relative/r; rm fifo; ln -s sock fifo; rm 'with space/third'
            ln capable 'with space/third'; rm -r a/b; ln hard new/deep/again; touch -d 2011-11-11 null; chown 9:9 disk
            """, in: pair.source)
        try check(clx_lremovexattr(pair.source + "/capable", "user.note"), "removing an attribute")
        #expect(try !pair.sendChanges().isEmpty)
        try pair.expectEqual()
        // A descriptor that was opened early still is the file.
        #expect(try inode(pair.target + "/nothing") == opened)
        tick()
        #expect(try pair.sendChanges() == [])
        // A hole punched and a file cut.
        try shell(
            "truncate -s 3 nothing; fallocate -p -o 0 -l 4096 sparse; printf y | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none",
            in: pair.source)
        #expect(try pair.sendChanges().count == 2)
        try pair.expectEqual()
    }

    @Test func followsRenames() throws {
        let pair = try TreePair {
            try put("one", $0 + "/a")
            try put("two", $0 + "/b")
            try put("dump", $0 + "/temp")
            try put("old dump", $0 + "/dump")
        }
        try pair.sendAll()
        tick()
        #expect(try pair.sendChanges() == [])
        let (a, temp) = (try inode(pair.target + "/a"), try inode(pair.target + "/temp"))
        try shell("mv a x; mv b a; mv x b; mkdir d; mv temp d/dump; echo more >> d/dump", in: pair.source)
        let summary = try pair.sendChanges()
        #expect(summary.contains("renamed /a to /b") && summary.contains("content /d/dump"), "\(summary)")
        #expect(!summary.contains("content /b"))
        try pair.expectEqual()
        #expect(try inode(pair.target + "/b") == a && inode(pair.target + "/d/dump") == temp)
        tick()
        try shell("mv d/dump dump", in: pair.source)
        try pair.sendChanges()
        try pair.expectEqual()
        #expect(try inode(pair.target + "/dump") == temp)
    }

    /// A write in the same tick of the clock as the look leaves size and times as they were.
    @Test func seesAWriteInTheSameTick() throws {
        let pair = try TreePair { try put("0", $0 + "/f") }
        try pair.sendAll()
        for round in 1...300 {
            try put(String(round % 10), pair.source + "/f")
            try pair.sendChanges()
            try put(String((round + 1) % 10), pair.source + "/f")
            try pair.sendChanges()
            #expect(try SmallFile.text(pair.target + "/f") == String((round + 1) % 10))
        }
        // The same made certain: equal stamps are believed only when the clock has ticked since.
        let stamp = try Stamp(FileDescriptor(opening: pair.source + "/f", O_RDONLY), "f")
        #expect(stamp.isRacy(at: stamp.changed))
        var later = stamp.changed
        later.seconds += 3
        #expect(!stamp.isRacy(at: later))
        var whole = stamp
        whole.changed = Timestamp(seconds: 100, nanoseconds: 0)
        #expect(whole.isRacy(at: Timestamp(seconds: 100, nanoseconds: 999_999_999)))
    }

    /// Size and times as before, another content: the change time gives it away.
    @Test func seesAWriteWithTheTimeSetBack() throws {
        let pair = try TreePair { try put("before", $0 + "/f") }
        try pair.sendAll()
        tick()
        #expect(try pair.sendChanges() == [])
        try shell("touch -r f ../stamp; printf 'after!' > f; touch -r ../stamp f", in: pair.source)
        #expect(try pair.sendChanges() == ["content /f"])
        try pair.expectEqual()
    }

    /// A store through a shared mapping to a page that is dirty already changes no time stamp.
    @Test func comparesMappedFiles() throws {
        let pair = try TreePair { try put(String(repeating: "a", count: 4096), $0 + "/f") }
        let file = try FileDescriptor(opening: pair.source + "/f", O_RDWR)
        let memory = try #require(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0))
        defer { munmap(memory, 4096) }
        memory.storeBytes(of: 1, as: UInt8.self)
        try pair.sendAll()
        var before = try Stamp(file, "f")
        // Once more where the page was written back in between: it was clean then, and the store was stamped.
        for value: UInt8 in 2..<12 {
            tick()
            try pair.sendChanges()
            before = try Stamp(file, "f")
            memory.storeBytes(of: value, as: UInt8.self)
            if try Stamp(file, "f") == before { break }
        }
        // The trap this test is about.
        #expect(try Stamp(file, "f") == before)
        #expect(try pair.sendChanges() == [])
        let mapped = try SharedMappings.inodes(of: getpid())
        #expect(mapped.contains(before.inode))
        #expect(try pair.sendChanges(suspects: mapped) == ["content /f"])
        try pair.expectEqual()
    }

    @Test func leavesOutWhatIsExcluded() throws {
        let pair = try TreePair(excluding: [Array("a/skip".utf8), Array(".stub".utf8)]) {
            try shell("mkdir -p a/skip; echo 1 > a/skip/f; echo 2 > .stub; echo 3 > a/keep; mkdir skip", in: $0)
        }
        try pair.sendAll()
        #expect(try Folder.names(pair.target).sorted() == ["a", "skip"])
        #expect(try Folder.names(pair.target + "/a") == ["keep"])
        try shell("rm -r a/skip .stub", in: pair.source)
        try pair.sendChanges()
        try pair.expectEqual()
    }

    @Test func readOnlyCostsNothing() throws {
        let pair = try TreePair { try put("x", $0 + "/f") }
        let sender = FileTreeSender(root: pair.root, isReadOnly: true)
        _ = try sender.manifest()
        try put("y", pair.source + "/f")
        #expect(try sender.changes() == nil)
    }

    @Test func survivesATreeThatChangesWhileItIsSent() throws {
        let pair = try TreePair { folder in
            for number in 0..<200 { try put("\(number)", folder + "/f\(number)") }
        }
        let script = """
            i=0; while [ $i -lt 150 ]; do i=$((i+1)); n=$((i % 200)); echo $i >> f$n; mv f$n g$n; mkdir -p d/$n
            echo $i > d/$n/x; mv g$n f$((199-n)); rm -rf d/$((n / 2)); ln -f f$((199-n)) h$n; done
            """
        let source = pair.source
        let thread = try Thread { _ = try? shell(script, in: source) }
        try pair.sendAll()
        for _ in 0..<20 {
            try pair.sendChanges()
            usleep(3000)
        }
        thread.join()
        try pair.sendChanges()
        try pair.expectEqual()
    }

    @Test func refusesAMountThatNobodyNamed() throws {
        let pair = try TreePair { try Folder.create($0 + "/m") }
        try check(clx_mount("none", pair.source + "/m", "tmpfs", 0, nil), "mounting")
        defer { clx_umount(pair.source + "/m", 0) }
        let error = #expect(throws: ContainerError.self) { try pair.sender.manifest() }
        #expect(error?.description.contains("/m") == true)
    }

    @Test func remembersDigests() throws {
        let pair = try TreePair { try put("x", $0 + "/f") }
        tick()
        let cache = DigestCache(file: pair.folder + "/digests")
        let file = try FileDescriptor(opening: pair.source + "/f", O_RDWR)
        let first = try cache.digest(of: file, name: "f").0
        #expect(first == contentDigest("x"))
        try cache.save()
        let second = DigestCache(file: pair.folder + "/digests")
        #expect(try second.digest(of: file, name: "f").0 == first)
        try FileContent.write([121], file, at: 0, name: "f")
        #expect(try second.digest(of: file, name: "f").0 == contentDigest("y"))
        // A damaged file counts as none.
        try put("APUSDIG1 nonsense", pair.folder + "/digests")
        #expect(try DigestCache(file: pair.folder + "/digests").digest(of: file, name: "f").0 == contentDigest("y"))
    }

    /// Several migrations of a host keep what they have learned in one file.
    @Test func digestsAreSavedAtOnce() async throws {
        let pair = try TreePair { try put("x", $0 + "/f") }
        let path = pair.folder + "/digests"
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask { for _ in 0..<500 { try DigestCache(file: path).save() } }
            }
            try await group.waitForAll()
        }
        #expect(access(path, F_OK) == 0)
    }

    @Test func verifiesMappedFiles() throws {
        let pair = try TreePair {
            try shell("mkdir lib; echo lib > lib/so.1; ln -s so.1 lib/so; ln -s /lib/so abs; ln -s /etc out", in: $0)
        }
        let cache = DigestCache(file: nil)
        let files = try MappedFiles.describe(["/lib/so.1", "/abs"], root: pair.root, cache: cache)
        #expect(files[0].digest == files[1].digest && files[0].size == 4)
        try pair.sendAll()
        let target = try TreeRoot(folder: pair.target)
        try MappedFiles.verify(files, root: target, cache: cache)
        #expect(throws: (any Error).self) {
            try MappedFiles.verify([.init(path: "/out/passwd", size: 1)], root: target, cache: cache)
        }
        try put("LIB\n", pair.target + "/lib/so.1")
        var error = #expect(throws: ContainerError.self) { try MappedFiles.verify(files, root: target, cache: cache) }
        #expect(error?.description == "mapped file /lib/so.1 differs on the destination: same size, other content")
        try put("longer", pair.target + "/lib/so.1")
        error = #expect(throws: ContainerError.self) { try MappedFiles.verify(files, root: target, cache: cache) }
        #expect(error?.description.contains("6 bytes instead of 4") == true)
        try shell("rm lib/so.1", in: pair.target)
        error = #expect(throws: ContainerError.self) { try MappedFiles.verify(files, root: target, cache: cache) }
        #expect(error?.description.contains("is not there") == true)
    }

    /// While it is looked at, a file is replaced by a link, and that is removed: the first goes at the target.
    @Test func aNameThatIsReplacedAndThenGoneIsRemoved() throws {
        let pair = try TreePair { try put("first", $0 + "/name") }
        try pair.sendAll()
        let path = pair.source + "/name", other = pair.source + "/other"
        let begun = Atomic(0), done = Atomic(0), rounds = 2000
        let thread = try Thread {
            for round in 1...rounds {
                while begun.load(ordering: .acquiring) < round {}
                rename(other, path)
                for _ in 0..<round % 100 * 400 { _ = begun.load(ordering: .acquiring) }
                unlink(path)
                done.store(round, ordering: .releasing)
            }
        }
        var left = 0
        for round in 1...rounds {
            try put("first", path)
            symlink("target", other)
            try pair.sendChanges()
            begun.store(round, ordering: .releasing)
            while done.load(ordering: .acquiring) < round { try pair.sendChanges() }
            try pair.sendChanges()
            if access(pair.target + "/name", F_OK) == 0 { left += 1 }
        }
        thread.join()
        #expect(left == 0, "of \(rounds)")
        try pair.expectEqual()
    }

    /// Four threads change files without a pause, and whoever looks at them has the least of a processor.
    @Test func aFolderThatChangesWithoutAPauseDoesNotHoldUpALook() throws {
        let pair = try TreePair(in: "/dev/shm") { try shell("mkdir 0 1 2 3", in: $0) }
        try pair.sendAll()
        let isOver = Atomic(false), end = monotonicNow() + 30_000_000_000, source = pair.source
        let threads = try (0..<4).map { number in
            try Thread {
                var count = 0
                while !isOver.load(ordering: .acquiring), monotonicNow() < end {
                    mkdir("\(source)/\(number)/\(count)", 0o755)
                    rmdir("\(source)/\(number)/\(count)")
                    count += 1
                }
            }
        }
        setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19)
        defer { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 0) }
        let enough = monotonicNow() + 3_000_000_000
        while monotonicNow() < enough { try pair.sendChanges() }
        #expect(monotonicNow() < end)
        isOver.store(true, ordering: .releasing)
        for thread in threads { thread.join() }
        try pair.sendChanges()
        try pair.expectEqual()
    }
}
