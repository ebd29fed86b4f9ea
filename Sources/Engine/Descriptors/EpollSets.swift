// epoll(7): which descriptors are watched, for what, with which data.
import Glibc
import LinuxKernel

enum EpollKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool { probe.link == "anon_inode:[eventpoll]" }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        var set = EpollSet()
        // tfd:        5 events:       19 data:                5  pos:0 ino:... sdev:...
        for line in try probe.info("tfd") {
            let words = line.split(separator: " ")
            guard words.count > 4, let number = Int32(words[0]), let events = UInt32(words[2], radix: 16),
                let data = UInt64(words[4], radix: 16)
            else { throw EngineError.invalidImage("epoll information \(line)") }
            var watch = EpollSet.Watch()
            (watch.descriptor, watch.events, watch.data) = (number, events, data)
            set.watches.append(watch)
        }
        return .epoll(set)
    }

    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .epoll = kind { true } else { false }
    }

    static func create(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.Argument {
        .result(batch.call(.epollCreate1, .int(O_CLOEXEC), doing: "making an epoll set"))
    }

    /// Finds the open file that each item of a set watches: the number under which it was added may be closed, or lead
    /// to another file.
    ///
    /// - Parameter index: of the open file that a number leads to.
    /// - Returns: the first number whose item watches a file that no descriptor leads to any more, or nil.
    static func resolve(_ set: inout EpollSet, number: Int32, _ open: OpenFiles, index: [Int32: Int]) -> Int32? {
        var seen: [Int32: UInt32] = [:]
        for at in set.watches.indices {
            let item = set.watches[at].descriptor
            let position = seen[item, default: 0]
            seen[item] = position + 1
            guard let target = open.number(watchedBy: number, item: item, position: position),
                let file = index[target]
            else { return item }
            set.watches[at].file = UInt32(file)
        }
        return nil
    }

    /// Such an item can be neither reached nor removed by the program, and still reports events.
    static func orphan(_ item: Int32, of set: Int32, _ pid: Int32) -> Obstacle {
        DescriptorTable.named(
            set, pid, "epoll set that watches a file added as fd \(item), which no descriptor leads to, not carried yet"
        )
    }

    /// Adds the call that adds an item to the set at number `set`, under the number under which it was added before.
    static func add(_ watch: EpollSet.Watch, to set: Int32, _ batch: inout CallBatch) {
        // struct epoll_event is packed: 32 bits of events, 64 of data.
        let event = batch.bytes(
            withUnsafeBytes(of: watch.events) { Array($0) } + withUnsafeBytes(of: watch.data) { Array($0) })
        batch.call(
            .epollCtl, .int(set), .value(1), .int(watch.descriptor), .address(event),
            doing: "adding fd \(watch.descriptor) to the epoll set fd \(set)")
    }
}
