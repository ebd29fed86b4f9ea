import Glibc
import LinuxKernel
import Testing

@testable import Testbed

/// Runs of segments are cut out of large frames so that a receiver sees what the sender would have sent.
struct SuperframeTests {
    private static let segment = 1000

    /// A frame of TCP over IPv4 or IPv6 with a virtio_net_hdr and the bytes 0, 1, 2 ... as payload.
    private func frame(payload: Int, version6: Bool = false) -> [UInt8] {
        let network = version6 ? 40 : 20
        let (transport, headers) = (14 + network, 14 + network + 32)
        var header = [UInt8](repeating: 0, count: TAP.header)
        (header[0], header[1]) = (1, version6 ? 4 : 1)
        for (at, value) in [(2, headers), (4, Self.segment), (6, transport), (8, 16)] {
            (header[at], header[at + 1]) = (UInt8(value & 255), UInt8(value >> 8))
        }
        var bytes = [UInt8](repeating: 0, count: headers) + (0..<payload).map { UInt8($0 * 7 & 255) }
        func put(_ at: Int, _ value: Int) { (bytes[at], bytes[at + 1]) = (UInt8(value >> 8 & 255), UInt8(value & 255)) }
        put(12, version6 ? 0x86dd : 0x0800)
        bytes[14] = version6 ? 0x60 : 0x45
        if version6 {
            put(18, 32 + payload)
        } else {
            put(16, 52 + payload)
            put(18, 0xfffe)
        }
        for at in (transport - (version6 ? 32 : 8))..<transport { bytes[at] = UInt8(at) }
        // The sequence number wraps within the frame.
        put(transport + 4, 0xffff)
        put(transport + 6, 0xfff0)
        bytes[transport + 12] = 0x80
        bytes[transport + 13] = 0x99  // CWR, ACK, PSH, FIN
        put(transport + 16, sum(pseudoHeader(bytes, transport, 32 + payload)))
        return header + bytes
    }

    private func sum(_ bytes: [UInt8]) -> Int {
        var total = stride(from: 0, to: bytes.count, by: 2).reduce(0) { $0 + Int(bytes[$1]) << 8 + Int(bytes[$1 + 1]) }
        while total > 0xffff { total = total & 0xffff + total >> 16 }
        return total
    }
    private func pseudoHeader(_ frame: [UInt8], _ transport: Int, _ length: Int) -> [UInt8] {
        let addresses = frame[(transport - (frame[14] >> 4 == 6 ? 32 : 8))..<transport]
        return Array(addresses) + [0, 6, UInt8(length >> 8), UInt8(length & 255)]
    }

    @Test(arguments: [false, true])
    func everyCutIsWhatTheSenderWouldHaveSent(version6: Bool) throws {
        let payload = 7 * Self.segment + 300
        var whole = frame(payload: payload, version6: version6)
        let transport = version6 ? 54 : 34
        let headers = transport + 32
        var ends: [Int32] = [0, 0]
        try checkC(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends), "making a socket pair")
        defer { for end in ends { close(end) } }
        var scratch = [UInt8](repeating: 0, count: TAP.header + Superframe.mostHeaders)
        try whole.withUnsafeMutableBytes { memory in
            let superframe = Superframe(memory.baseAddress!, memory.count)
            #expect(superframe.segments == 8 && superframe.headers == headers)
            for first in 0..<8 {
                for count in 1...(8 - first) {
                    let written = scratch.withUnsafeMutableBytes {
                        superframe.write(first, count, to: ends[0], scratch: $0.baseAddress!)
                    }
                    var got = [UInt8](repeating: 0, count: 70_000)
                    got.removeSubrange(try checkC(read(ends[1], &got, got.count), "reading")...)
                    #expect(got.count == written)
                    let size = got.count - TAP.header - headers
                    let expected = min(count * Self.segment, payload - first * Self.segment)
                    #expect(size == expected)
                    #expect(superframe.wireBytes(first, count) == size + count * headers)
                    func word(_ at: Int) -> Int { Int(got[TAP.header + at]) << 8 + Int(got[TAP.header + at + 1]) }
                    let inner = Array(got[TAP.header...])
                    #expect(Array(inner[headers...]) == (0..<size).map { UInt8(($0 + first * Self.segment) * 7 & 255) })
                    // One segment is no large frame any more.
                    #expect(got[1] == (size <= Self.segment ? 0 : version6 ? 4 : 1))
                    #expect(Int(got[4]) + Int(got[5]) << 8 == (size <= Self.segment ? 0 : Self.segment))
                    if version6 {
                        #expect(word(18) == 32 + size)
                    } else {
                        #expect(word(16) == 52 + size)
                        #expect(word(18) == (0xfffe + first) & 0xffff)
                        if count < 8 { #expect(sum(Array(inner[14..<34])) == 0xffff) }
                    }
                    let sequence = UInt32(word(transport + 4)) << 16 | UInt32(word(transport + 6))
                    #expect(sequence == 0xffff_fff0 &+ UInt32(first * Self.segment))
                    // CWR belongs to the first segment, PSH and FIN to the last.
                    let flags = inner[transport + 13]
                    #expect(flags & 128 == (first == 0 ? 128 : 0))
                    #expect(flags & 9 == (first + count == 8 ? 9 : 0) && flags & 16 == 16)
                    #expect(word(transport + 16) == sum(pseudoHeader(inner, transport, 32 + size)))
                }
            }
        }
    }

    @Test func otherFramesAreLeftWhole() {
        // Not marked as large; a header that does not fit; a segment size of 0.
        for (at, value) in [(1, UInt8(0)), (6, 200), (4, 0)] {
            var bytes = frame(payload: 100)
            bytes[at] = value
            if at == 4 { bytes[5] = 0 }
            bytes.withUnsafeMutableBytes {
                let frame = Superframe($0.baseAddress!, $0.count)
                #expect(frame.segments == 1 && frame.segmentSize == 0)
                #expect(frame.wireBytes(0, 1) == $0.count - TAP.header)
            }
        }
    }
}
