import Testing

@testable import Testbed

struct KeyValueTests {
    @Test func zipfIsYCSBs() {
        // The constant of YCSB's source for 10^10 items and 0.99, and the plain sum where that can be had.
        #expect(abs(KeyChooser.zeta(1e10, 0.99) - 26.46902820178302) < 1e-9)
        let sum = (1...20_000).reduce(0.0) { $0 + 1 / Double($1).squareRoot() }
        #expect(abs(KeyChooser.zeta(20_000, 0.5) - sum) < 1e-6)
        #expect(KeyChooser.hash(1) == 8_517_097_267_634_966_620)
        var chooser = KeyChooser(.zipf, count: 1000, seed: 1)
        var counts = [Int](repeating: 0, count: 1000)
        for _ in 0..<200_000 { counts[chooser.next()] += 1 }
        let hottest = Int(KeyChooser.hash(0) % 1000)
        #expect(counts.max() == counts[hottest])
        // 1 / 26.47 of the draws, and what of the tail falls onto the same key.
        #expect((0.0375...0.0395).contains(Double(counts[hottest]) / 200_000))
        #expect(counts.allSatisfy { $0 > 0 })
    }

    @Test func uniformIsUniform() {
        var chooser = KeyChooser(.uniform, count: 100, seed: 3)
        var counts = [Int](repeating: 0, count: 100)
        for _ in 0..<100_000 { counts[chooser.next()] += 1 }
        #expect(counts.allSatisfy { (800...1200).contains($0) })
    }

    @Test func valuesTellTheirWrite() {
        let records = KeyValueRecords(size: 256)
        let value = records.value(7, 3)
        #expect(value.count == 256 && records.version(value, of: 7) == 3)
        #expect(records.version(value, of: 8) == nil, "another key's")
        #expect(records.version(Array(value.dropLast()), of: 7) == nil)
        var torn = value
        torn.replaceSubrange(128..., with: records.value(7, 2)[128...])
        #expect(records.version(torn, of: 7) == nil, "half of one write, half of another")
    }

    private func failed(_ oracle: KeyValueOracle) -> [String] {
        oracle.verdicts.filter { !$0.passed }.map(\.name)
    }

    private let read = "every read exact and new enough"
    private let present = "every acknowledged write present"

    @Test func readsAreJudged() {
        var oracle = KeyValueOracle(keys: 2)
        let value = { KeyValueRecords().value($0, $1) }
        for _ in 0..<2 { oracle.acknowledge(0, oracle.write(0)) }
        let old = oracle.least(0)
        _ = oracle.write(0)
        // Write 3 is on its way: a read gives 2 or 3, whenever it was sent.
        oracle.judge(value(0, 2), of: 0, least: old)
        oracle.judge(value(0, 3), of: 0, least: old)
        // Its key holds nothing as long as nothing was acknowledged.
        oracle.judge(nil, of: 1, least: 0)
        #expect(oracle.stale + oracle.foreign + oracle.missing == 0 && oracle.reads == 3)
        // Write 3 was seen, so 2 is over for a read that is sent now.
        oracle.judge(value(0, 2), of: 0, least: oracle.least(0))
        #expect(oracle.stale == 1 && failed(oracle).contains(read))
        // Never written, another key's, gone.
        oracle.judge(value(0, 4), of: 0, least: 0)
        oracle.judge(value(1, 1), of: 0, least: 0)
        oracle.judge(nil, of: 0, least: 2)
        #expect(oracle.foreign == 2 && oracle.missing == 1 && oracle.problems.count == 4)
    }

    @Test func endIsJudged() {
        func oracle(_ atEnd: (inout KeyValueOracle) -> Void) -> KeyValueOracle {
            var oracle = KeyValueOracle(keys: 2)
            for key in 0..<2 { oracle.acknowledge(key, oracle.write(key)) }
            oracle.acknowledge(0, oracle.write(0))
            _ = oracle.write(1)
            atEnd(&oracle)
            return oracle
        }
        let value = { KeyValueRecords().value($0, $1) }
        // An unacknowledged write may be there or not.
        for version in [UInt32(1), 2] {
            let right = oracle {
                $0.judgeAtEnd(value(0, 2), of: 0)
                $0.judgeAtEnd(value(1, version), of: 1)
            }
            #expect(failed(right) == [])
        }
        let lost = oracle {
            $0.judgeAtEnd(value(0, 1), of: 0)
            $0.judgeAtEnd(nil, of: 1)
        }
        #expect(lost.lost == 2 && failed(lost) == [present])
        #expect(failed(oracle { $0.judgeAtEnd(value(0, 2), of: 0) }) == [present], "a key was not looked at")
    }

    @Test func memcachedRepliesInPieces() throws {
        let text =
            "STORED\r\nEND\r\nVALUE user1 0 6\r\nEND\r\nx\r\nEND\r\nSERVER_ERROR out of memory\r\n"
            + "VALUE a 1 0\r\n\r\nEND\r\n"
        let expected: [KeyValueReply] = [
            .stored, .missing, .value(Array("END\r\nx".utf8)), .other("SERVER_ERROR out of memory"), .value([]),
        ]
        let stream = Array(text.utf8)
        for size in 1...stream.count {
            var reader = MemcachedReader()
            var replies: [KeyValueReply] = []
            for start in stride(from: 0, to: stream.count, by: size) {
                Array(stream[start..<min(start + size, stream.count)]).withUnsafeBytes { reader.append($0) }
                while let reply = try reader.next() { replies.append(reply) }
            }
            #expect(replies == expected)
        }
    }

    @Test(arguments: ["VALUE a 0 x\r\n", "VALUE a 0 99999999\r\n", "VALUE a 0 2\r\nabcd\r\nEND\r\n"])
    func nonsenseOfMemcachedIsRefused(text: String) {
        var reader = MemcachedReader()
        Array(text.utf8).withUnsafeBytes { reader.append($0) }
        #expect(throws: RESPReader.Malformed.self) { try reader.next() }
    }
}
