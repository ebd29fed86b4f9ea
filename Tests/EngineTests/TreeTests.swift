// A tree of three processes that share memory and files, from an image to what has to be made: no process takes part.
import Foundation
import Glibc
import LinuxKernel
import Testing

@testable import Engine

@Suite struct TreeTests {
    private static let sharedObject: UInt64 = 9
    private static let file: UInt32 = 0, counter: UInt32 = 1, readEnd: UInt32 = 2, writeEnd: UInt32 = 3

    /// Process 1 has an address space and a descriptor table of its own; 5 and 6 share theirs. The counter is open in
    /// both tables.
    private static func tree() -> TreeImage {
        TreeImage.with {
            $0.version = TreeImage.currentVersion
            $0.processes = [
                process(1, space: 0, table: 0), process(5, space: 1, table: 1), process(6, space: 1, table: 1),
            ]
            $0.spaces = ["/server", "/worker"].map { path in AddressSpace.with { $0.executable = path } }
            $0.tables = [
                table([0: file, 4: counter, 5: counter, 6: readEnd, 7: writeEnd]), table([1: counter, 2: file]),
            ]
            $0.files = [
                OpenFile.with { $0.path.path = "/log" }, OpenFile.with { $0.event.count = 3 },
                OpenFile.with { ($0.pipe.pipe, $0.pipe.capacity) = (77, 4096) },
                OpenFile.with { ($0.pipe.pipe, $0.pipe.capacity, $0.pipe.writeEnd) = (77, 4096, true) },
            ]
        }
    }

    private static func process(_ pid: Int32, space: UInt32, table: UInt32) -> ProcessImage {
        ProcessImage.with {
            ($0.pid, $0.space, $0.table) = (pid, space, table)
            $0.settings.workingDirectory = Data("/".utf8)
            $0.signals.actions = Data(count: 2048)
        }
    }

    /// Two threads of each process, the second of a TID 100 higher.
    private static func threads(of tree: TreeImage) -> [ProcessThreads] { tree.processes.map { threads($0.pid) } }

    private static func threads(_ pid: Int32) -> ProcessThreads {
        ProcessThreads.with {
            $0.pid = pid
            $0.threads = [pid, pid + 100].map { tid in
                ThreadImage.with {
                    $0.tid = tid
                    $0.registers = Data(count: MemoryLayout<user_regs_struct>.size)
                    $0.xstate = Data(count: 576)
                    ($0.credentials.uid, $0.credentials.gid) = ([0, 0, 0, 0], [0, 0, 0, 0])
                }
            }
        }
    }

    private static func table(_ files: [Int32: UInt32]) -> DescriptorTableImage {
        DescriptorTableImage.with {
            $0.descriptors = files.sorted { $0.key < $1.key }.map { number, file in
                Descriptor.with { ($0.number, $0.file) = (number, file) }
            }
        }
    }

    private static func areas(sharedAt address: UInt64) -> [MemoryArea] {
        [
            MemoryArea.with { ($0.start, $0.end, $0.protection, $0.kind) = (0x10000, 0x20000, 3, .anonymous) },
            MemoryArea.with {
                ($0.start, $0.end, $0.protection, $0.kind) = (address, address + 0x4000, 1, .sharedAnonymous)
                $0.object = sharedObject
            },
        ]
    }

    private func checkedTree() throws -> CheckedTree {
        var checked = try CheckedTree(TreeImage(serializedBytes: Self.tree().serializedData()))
        try checked.add(Self.threads(of: checked.tree).map { try ProcessThreads(serializedBytes: $0.serializedData()) })
        return checked
    }

    @Test func eachProcessHasWhatItRefersTo() throws {
        let checked = try checkedTree(), parts = checked.tree.processes.indices.map { checked.parts(of: $0) }
        #expect(checked.tree == Self.tree())
        #expect(parts.map(\.process.pid) == [1, 5, 6])
        #expect(parts.map { $0.threads.threads.map(\.tid) } == [[1, 101], [5, 105], [6, 106]])
        #expect(parts.map(\.space.executable) == ["/server", "/worker", "/worker"])
        #expect(parts[0].descriptors.count == 5)
        #expect(parts[1].descriptors == parts[2].descriptors)
        let counters = parts.map { Set($0.descriptors.filter { $0.file == Self.counter }.map(\.number)) }
        #expect(counters == [[4, 5], [1], [1]])
    }

    @Test func sharedMemoryIsOneObjectInEveryLayout() throws {
        let layouts = try [0x50000, 0x90000].map { try CheckedLayout(Self.areas(sharedAt: $0)) }
        let objects = layouts.map { $0.areas.filter { $0.kind == .sharedAnonymous }.map(\.object) }
        #expect(objects == [[Self.sharedObject], [Self.sharedObject]])
        for layout in layouts {
            let steps = AddressSpacePlan.plan(from: [], to: layout.areas).steps
            let shared = layout.areas[1]
            #expect(steps.contains(.map(shared, shared.range)))
            #expect(steps.contains(.protect(shared.range, 1)))
        }
        let moved = AddressSpacePlan.plan(from: layouts[0].areas, to: layouts[1].areas).steps
        #expect(moved.first == .unmap(layouts[0].areas[1].range))
        #expect(!moved.contains { if case .map(let area, _) = $0 { area.kind == .anonymous } else { false } })
    }

    @Test func openFilesGetTheirNumbersInEachTable() throws {
        let checked = try checkedTree()
        for (index, expected) in [(0, [0: 0, 4: 1, 5: 1, 6: 2, 7: 3]), (1, [1: 1, 2: 0])] as [(Int, [Int32: Int])] {
            let places = checked.parts(of: index).descriptors.map {
                DescriptorPlan.Place(number: $0.number, file: Int($0.file), closeOnExec: $0.closeOnExec)
            }
            let contents = zip(checked.tree.files, checked.kinds).map { file, kind -> DescriptorPlan.Content in
                kind.pair(file).map { .pair($0.number, isSecond: $0.isSecond) } ?? .single
            }
            let plan = try DescriptorPlan(open: [0, 1, 2], contents: contents, places: places, items: [])
            #expect(Self.numbers(after: plan.steps, contents) == expected)
        }
    }

    /// Which file each number leads to when the steps have been taken.
    private static func numbers(after steps: [DescriptorPlan.Step], _ contents: [DescriptorPlan.Content]) -> [Int32:
        Int]
    {
        var open: [Int32: Int] = [:]
        for step in steps {
            switch step {
            case .make(let file, let number): open[number] = file
            case .makePair(let file, let first, let second):
                guard case .pair(let pair, _) = contents[file] else { continue }
                open[first] = contents.firstIndex(of: .pair(pair, isSecond: false))
                open[second] = contents.firstIndex(of: .pair(pair, isSecond: true))
            case .duplicate(let from, let number, _): open[number] = open[from]
            case .close(let number): open[number] = nil
            case .setCloseOnExec, .add: break
            }
        }
        return open
    }

    @Test func aTreeOfSeveralProcessesIsRefusedByName() throws {
        let error = #expect(throws: EngineError.self) { try checkedTree().onlyProcess() }
        #expect("\(error!)".contains("3 processes, of which one can be made yet"))
        var one = Self.tree()
        (one.processes, one.spaces, one.tables) = ([one.processes[0]], [one.spaces[0]], [one.tables[0]])
        #expect(try CheckedTree(one).onlyProcess().process.pid == 1)
    }

    @Test func lateStateFindsItsFileAndSignalsTheirProcess() throws {
        var tree = Self.tree()
        tree.files.append(OpenFile.with { $0.udp.family = AF_INET })
        var checked = try CheckedTree(tree)
        try checked.add(Self.threads(of: tree))
        let datagram = Datagram.with { ($0.source, $0.content) = (Data([2, 0]) + Data(count: 14), Data("late".utf8)) }
        try checked.complete([4: LateState.with { $0.datagrams.datagrams = [datagram] }])
        #expect(checked.tree.files[4].udp.queue.datagrams == [datagram])
        #expect(throws: EngineError.self) {
            try checked.complete([Self.counter: LateState.with { $0.datagrams.datagrams = [datagram] }])
        }
        let signal = withUnsafeBytes(of: SIGUSR1) { Data($0) } + Data(count: 124)
        try checked.check([5: LateSignals(ofProcess: [signal], ofThreads: [105: [signal]])])
        #expect(throws: EngineError.self) { try checked.check([5: LateSignals(ofThreads: [106: [signal]])]) }
    }
}
