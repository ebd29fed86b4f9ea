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

    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) -> CallBatch.Argument {
        .result(batch.call(.epollCreate1, .int(O_CLOEXEC), doing: "making an epoll set"))
    }

    static func connect(_ file: OpenFile, number: Int32, _ batch: inout CallBatch) {
        for watch in file.epoll.watches {
            // struct epoll_event is packed: 32 bits of events, 64 of data.
            let event = batch.bytes(
                withUnsafeBytes(of: watch.events) { Array($0) } + withUnsafeBytes(of: watch.data) { Array($0) })
            batch.call(
                .epollCtl, .int(number), .value(1), .int(watch.descriptor), .address(event),
                doing: "adding fd \(watch.descriptor) to the epoll set fd \(number)")
        }
    }
}
