// The descriptor table at the destination: the open files are made in the stub, put at their numbers, and given their
// state.
import CLinux
import Glibc
import LinuxKernel

extension DescriptorTable {
    /// Makes all files and puts them at the numbers of a table.
    ///
    /// - Returns: the last calls of it, which have not run yet: more can be added to them.
    static func make(_ descriptors: [Descriptor], _ checked: CheckedTree, _ stub: StubProcess) throws -> CallBatch {
        let files = checked.tree.files, kinds = checked.kinds
        let plan: DescriptorPlan
        do throws(DescriptorPlan.Impossible) {
            plan = try DescriptorPlan(
                open: try openNumbers(of: stub), contents: contents(of: files, kinds), places: places(of: descriptors),
                items: movedItems(of: files, descriptors))
        } catch { throw EngineError.invalidImage(error.why) }
        var batch = CallBatch()
        for step in plan.steps {
            try makeRoom(in: &batch, stub)
            switch step {
            case .make(let file, let number):
                let made = try kinds[file].create(files[file], &batch)
                batch.expect(made, toBe: number)
            case .makePair(let file, let first, let second):
                let numbers = try kinds[file].createPair(files[file], &batch)
                batch.expect(numbers, toBe: [first, second])
            case .duplicate(let from, let number, let closeOnExec):
                batch.call(
                    .dup3, .int(from), .int(number), .int(closeOnExec ? O_CLOEXEC : 0), doing: "placing fd \(number)")
            case .setCloseOnExec(let number, let isSet):
                batch.call(
                    .fcntl, .int(number), .int(F_SETFD), .int(isSet ? FD_CLOEXEC : 0),
                    doing: "setting the flags of fd \(number)")
            case .close(let number): batch.call(.close, .int(number), doing: "closing fd \(number), which is done with")
            case .add(let item, let set):
                EpollKind.add(files[item.set].epoll.watches[item.index], to: set, &batch)
            }
        }
        for (index, number) in plan.numbers.enumerated() {
            try makeRoom(in: &batch, stub)
            if let number { setFlags(of: files[index], kinds[index], number, &batch) }
        }
        return batch
    }

    /// What is open in the stub: a number that is being closed would be opened again, so none is left to chance.
    private static func openNumbers(of stub: StubProcess) throws(DescriptorPlan.Impossible) -> [Int32] {
        do throws(KernelError) { return try ProcessFiles.descriptors(of: stub.pid) } catch {
            throw DescriptorPlan.Impossible(why: "\(error)")
        }
    }

    /// As many calls as the injection area takes, with room for those of one step.
    private static func makeRoom(in batch: inout CallBatch, _ stub: StubProcess) throws {
        guard batch.size > 1 << 20 else { return }
        _ = try stub.run(batch)
        batch = CallBatch()
    }

    private static func setFlags(
        of file: OpenFile, _ kind: any DescriptorKind.Type, _ number: Int32, _ batch: inout CallBatch
    ) {
        let settable = Int32(bitPattern: file.flags) & (O_NONBLOCK | O_APPEND | O_DIRECT_)
        if settable & ~kind.flagsOfCreation != 0 {
            batch.call(.fcntl, .int(number), .int(F_SETFL), .int(settable), doing: "setting file flags")
        }
        if file.owner != 0 {
            batch.call(.fcntl, .int(number), .int(F_SETOWN), .int(file.owner), doing: "setting a file's owner")
        }
        if file.ownerSignal != 0 {
            batch.call(.fcntl, .int(number), .value(10), .int(file.ownerSignal), doing: "setting a file's signal")
        }
    }

    // ---- What the plan asks of an image ----------------------------------------------------------------------

    private static func contents(of files: [OpenFile], _ kinds: [any DescriptorKind.Type]) -> [DescriptorPlan.Content] {
        zip(files, kinds).map { file, kind in
            if case .stream(let stream) = file.kind { return .stream(Int32(clamping: stream.number)) }
            return kind.pair(file).map { .pair($0.number, isSecond: $0.isSecond) } ?? .single
        }
    }
    private static func places(of descriptors: [Descriptor]) -> [DescriptorPlan.Place] {
        descriptors.map {
            DescriptorPlan.Place(number: $0.number, file: Int($0.file), closeOnExec: $0.closeOnExec)
        }
    }

    /// The items of epoll sets whose number leads to another file by now, or to none.
    private static func movedItems(of files: [OpenFile], _ descriptors: [Descriptor]) -> [DescriptorPlan.Item] {
        let places = Dictionary(descriptors.map { ($0.number, $0.file) }) { first, _ in first }
        return files.enumerated().flatMap { set, file -> [DescriptorPlan.Item] in
            guard case .epoll(let epoll) = file.kind else { return [] }
            return epoll.watches.enumerated().compactMap { index, watch in
                if places[watch.descriptor] == watch.file { return nil }
                return DescriptorPlan.Item(number: watch.descriptor, file: Int(watch.file), set: set, index: index)
            }
        }
    }

    // ---- State ---------------------------------------------------------------------------------------------

    /// Gives the files that were made their state, but for connections.
    static func fill(_ descriptors: [Descriptor], _ checked: CheckedTree, _ stub: StubProcess, _ tools: RestoreTools)
        throws
    {
        let files = checked.tree.files, kinds = checked.kinds, numbers = numbers(of: files, descriptors)
        for (index, file) in files.enumerated() where kinds[index].needsFilling(file) {
            guard let copy = try copy(of: numbers[index], stub) else { continue }
            try kinds[index].fill(file, copy, among: files, tools)
        }
    }

    /// Brings to life what the network may reach, a kind after the other, then what watches descriptors.
    ///
    /// - Returns: the last calls of it, which have not run yet: more can be added to them.
    static func connect(
        _ descriptors: [Descriptor], _ checked: CheckedTree, _ stub: StubProcess, _ tools: RestoreTools
    ) throws -> CallBatch {
        let files = checked.tree.files, kinds = checked.kinds, numbers = numbers(of: files, descriptors)
        if let reason = EngineDescriptors.reasonAgainst(kinds.count { $0.connects }) {
            throw EngineError.invalidImage(reason)
        }
        for kind in descriptorKinds where kind.connects {
            var made: [(copy: FileDescriptor, file: OpenFile)] = []
            for index in kinds.indices where ObjectIdentifier(kinds[index]) == ObjectIdentifier(kind) {
                guard let copy = try copy(of: numbers[index], stub) else { continue }
                made.append((copy, files[index]))
            }
            try kind.connect(made, tools)
        }
        return try watch(files, descriptors, numbers, stub)
    }

    /// The calls that add the items of epoll sets whose numbers lead to their files.
    private static func watch(
        _ files: [OpenFile], _ descriptors: [Descriptor], _ numbers: [Int32?], _ stub: StubProcess
    ) throws -> CallBatch {
        let places = Dictionary(descriptors.map { ($0.number, $0.file) }) { first, _ in first }
        var batch = CallBatch()
        for (file, number) in zip(files, numbers) {
            guard case .epoll(let set) = file.kind, let number else { continue }
            for watch in set.watches where places[watch.descriptor] == watch.file {
                try makeRoom(in: &batch, stub)
                EpollKind.add(watch, to: number, &batch)
            }
        }
        return batch
    }

    /// A number by which each file is reached.
    private static func numbers(of files: [OpenFile], _ descriptors: [Descriptor]) -> [Int32?] {
        var numbers = [Int32?](repeating: nil, count: files.count)
        for descriptor in descriptors { numbers[Int(descriptor.file)] = descriptor.number }
        return numbers
    }

    /// The engine's own descriptor of a file that was made.
    private static func copy(of number: Int32?, _ stub: StubProcess) throws -> FileDescriptor? {
        guard let number else { return nil }
        return FileDescriptor(
            owning: try check(clx_pidfd_getfd(stub.pidfd.number, number), "taking fd \(number) of pid \(stub.pid)"))
    }
}

extension StubProcess {
    /// Lets the stub use more numbers than the program may: the program may have lowered its limit after it had opened
    /// its files. `ProcessAttributes` sets the program's own limit when all files are made.
    func liftDescriptorLimit() throws {
        let resource = Int32(RLIMIT_NOFILE.rawValue)
        var soft: UInt64 = 0, hard: UInt64 = 0, ours: UInt64 = 0
        if clx_prlimit(0, resource, 0, 0, 0, &soft, &ours) == 0, clx_prlimit(pid, resource, 0, 0, 0, &soft, &hard) == 0,
            hard < ours
        {
            // It takes CAP_SYS_RESOURCE, and only few programs need it: those whose hard limit was raised from outside.
            _ = clx_prlimit(pid, resource, ours, ours, 1, &soft, &hard)
        }
        var batch = CallBatch()
        let limit = batch.space(16)
        batch.call(.prlimit64, .value(0), .int(resource), .value(0), .address(limit), doing: "reading its limit")
        hard = try run(batch).word(limit, at: 1)
        batch = CallBatch()
        let lifted = batch.words([hard, hard])
        batch.call(.prlimit64, .value(0), .int(resource), .address(lifted), .value(0), doing: "lifting its limit")
        _ = try run(batch)
    }
}
