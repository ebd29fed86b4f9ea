// The tbf queueing discipline: used as a plug that holds frames in order inside the kernel and lets them go.
import CLinux
import Glibc

/// A token bucket at the root of an interface (tc-tbf(8)).
public struct TokenBucket: Sendable {
    /// Bytes a second.
    public let rate: UInt64
    /// Bytes that may pass at once.
    public let burst: UInt32
    /// Bytes that may wait.
    public let limit: UInt32
    public init(rate: UInt64, burst: UInt32, limit: UInt32) {
        self.rate = rate
        self.burst = burst
        self.limit = limit
    }
    /// Holds everything once its burst is burned: one byte a second, 64 MiB of room.
    public static let plug = TokenBucket(rate: 1, burst: 262_144, limit: 64 << 20)
    /// Lets everything pass.
    public static let open = TokenBucket(rate: 40_000_000_000, burst: 64 << 20, limit: 64 << 20)

    /// The message that sets this bucket at the root of `link`; `creating` it, or changing the one there. A change
    /// fills the bucket but does not start the queue: the next frame does.
    public func set(on link: Int32, creating: Bool) -> NetlinkMessage {
        var message = TokenBucket.message(
            CLX_RTM_NEWQDISC, link, flags: creating ? CLX_NLM_F_CREATE | CLX_NLM_F_EXCL : 0)
        message.add(CLX_TCA_KIND, "tbf")
        message.nest(CLX_TCA_OPTIONS, flagged: true) { options in
            // struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes, then limit, buffer, mtu.
            var parameters = [UInt8](repeating: 0, count: Int(CLX_TBF_QOPT_SIZE))
            parameters[1] = UInt8(CLX_TC_LINKLAYER_ETHERNET)  // known link layer: no rate table needed
            parameters.replaceSubrange(8..<12, with: NetlinkMessage.raw(UInt32(clamping: rate)))
            parameters.replaceSubrange(24..<28, with: NetlinkMessage.raw(limit))
            options.add(CLX_TCA_TBF_PARMS, parameters)
            if rate > UInt64(UInt32.max) { options.add(CLX_TCA_TBF_RATE64, rate) }
            options.add(CLX_TCA_TBF_BURST, burst)
        }
        return message
    }
    /// The message that removes it.
    public static func remove(from link: Int32) -> NetlinkMessage { message(CLX_RTM_DELQDISC, link) }

    fileprivate static func message(_ type: Int, _ link: Int32, flags: Int = 0) -> NetlinkMessage {
        var message = NetlinkMessage(type, flags: flags, fixed: CLX_TCMSG_SIZE)
        message.fixed(link, at: 4)
        message.fixed(UInt32(0x0001_0000), at: 8)  // handle 1:
        message.fixed(clx_TC_H_ROOT, at: 12)
        return message
    }
}

/// What waits in the root queue of an interface.
public struct QueueBacklog: Sendable {
    public let packets: UInt32
    public let bytes: UInt32
    public let dropped: UInt32
}

extension NetlinkSocket {
    /// The backlog of the tbf at the root of `link`, or nil if there is none.
    public func tokenBucketBacklog(of link: Int32) throws(KernelError) -> QueueBacklog? {
        for reply in try dump(NetlinkMessage(CLX_RTM_GETQDISC, fixed: CLX_TCMSG_SIZE), "listing queues")
        where reply.fixed(4, as: Int32.self) == link {
            let attributes = reply.attributes(after: CLX_TCMSG_SIZE)
            guard attributes.text(CLX_TCA_KIND) == "tbf", let statistics = attributes[CLX_TCA_STATS] else { continue }
            // struct tc_stats: u64 bytes; u32 packets, drops, overlimits, bps, pps, qlen, backlog.
            return QueueBacklog(
                packets: statistics.integer(at: 28), bytes: statistics.integer(at: 32),
                dropped: statistics.integer(at: 12))
        }
        return nil
    }
}
