// A filter on what leaves an interface: new TCP connections go to another interface instead.
import CLinux
import Glibc

/// Messages about the filters of an interface (tc-bpf(8), the clsact queueing discipline).
public enum TrafficFilter {
    /// Makes room for filters. The kernel drops what passes at that moment, so it is done before there is any traffic.
    public static func room(on link: Int32) -> NetlinkMessage {
        var message = NetlinkMessage(
            CLX_RTM_NEWQDISC, flags: CLX_NLM_F_CREATE | CLX_NLM_F_EXCL, fixed: CLX_TCMSG_SIZE)
        message.fixed(link, at: 4)
        message.fixed(UInt32(0xffff_0000), at: 8)
        message.fixed(UInt32(0xffff_fff1), at: 12)  // TC_H_CLSACT
        message.add(CLX_TCA_KIND, "clsact")
        return message
    }

    /// TCP segments that begin a connection (SYN without ACK) and are about to leave by `link` leave by `other`
    /// instead.
    public static func divertConnections(from link: Int32, to other: Int32) -> NetlinkMessage {
        var message = filter(44 /* RTM_NEWTFILTER */, link, flags: CLX_NLM_F_CREATE | CLX_NLM_F_EXCL)
        message.add(CLX_TCA_KIND, "bpf")
        message.nest(CLX_TCA_OPTIONS, flagged: true) { options in
            options.add(4 /* TCA_BPF_OPS_LEN */, UInt16(beginsConnection.count))
            options.add(5 /* TCA_BPF_OPS */, beginsConnection.flatMap(\.bytes))
            options.nest(1 /* TCA_BPF_ACT */, flagged: true) { actions in
                actions.nest(1, flagged: true) { action in
                    action.add(1 /* TCA_ACT_KIND */, "mirred")
                    action.nest(2 /* TCA_ACT_OPTIONS */, flagged: true) { parameters in
                        // struct tc_mirred: index, capab, action (TC_ACT_STOLEN), refcnt, bindcnt, eaction
                        // (TCA_EGRESS_REDIR), ifindex.
                        parameters.add(2, [0, 0, 4, 0, 0, 1, other].flatMap { NetlinkMessage.raw($0) })
                    }
                }
            }
        }
        return message
    }

    /// Takes it back.
    public static func remove(from link: Int32) -> NetlinkMessage { filter(45 /* RTM_DELTFILTER */, link, flags: 0) }

    private static func filter(_ type: Int, _ link: Int32, flags: Int) -> NetlinkMessage {
        var message = NetlinkMessage(type, flags: flags, fixed: CLX_TCMSG_SIZE)
        message.fixed(link, at: 4)
        message.fixed(UInt32(0xffff_fff3), at: 12)  // TC_H_CLSACT, what leaves
        message.fixed(UInt32(1 << 16) | UInt32(UInt16(3).bigEndian), at: 16)  // priority 1, ETH_P_ALL
        return message
    }

    /// An instruction of classic BPF (struct sock_filter).
    private struct Instruction {
        let code: UInt16, ifTrue: UInt8, ifFalse: UInt8, value: UInt32
        init(_ code: UInt16, _ value: UInt32, ifTrue: UInt8 = 0, ifFalse: UInt8 = 0) {
            (self.code, self.value, self.ifTrue, self.ifFalse) = (code, value, ifTrue, ifFalse)
        }
        var bytes: [UInt8] { NetlinkMessage.raw(code) + [ifTrue, ifFalse] + NetlinkMessage.raw(value) }
    }
    /// Jumps count the instructions that they pass over.
    private static let beginsConnection: [Instruction] = [
        Instruction(0x28, 12),  // the frame's type
        Instruction(0x15, 0x0800, ifFalse: 7),  // IPv4?
        Instruction(0x30, 23), Instruction(0x15, 6, ifFalse: 12),  // TCP?
        Instruction(0x28, 20), Instruction(0x45, 0x1fff, ifTrue: 10),  // a later fragment has no TCP header
        Instruction(0xb1, 14), Instruction(0x50, 27),  // the flags, behind the IPv4 header's length
        Instruction(0x05, 4),
        Instruction(0x15, 0x86dd, ifFalse: 6),  // IPv6?
        Instruction(0x30, 20), Instruction(0x15, 6, ifFalse: 4),  // TCP?
        Instruction(0x30, 67),  // the flags
        Instruction(0x54, 0x12), Instruction(0x15, 0x02, ifFalse: 1),  // SYN and not ACK?
        Instruction(0x06, .max), Instruction(0x06, 0),
    ]
}
