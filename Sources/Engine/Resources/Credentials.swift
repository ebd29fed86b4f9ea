// User and group IDs, capabilities and their kin, which the kernel keeps for each thread.
import Glibc
import LinuxKernel

/// Whether a thread has the leader's credentials and filters, asked in the thread itself. Of thousands of threads that
/// takes a fraction of the time that their status files take; those that differ are read there.
struct CredentialsCheck {
    private let leader: Credentials
    private let seccompMode: Int64, seccompFilters: UInt64
    private var ids: [(answer: CallBatch.DataReference, expected: [UInt32])] = []
    private var results: [(call: Int, expected: Int64)] = []
    private var sets: (call: Int, answer: CallBatch.DataReference, expected: [UInt32])?
    private var groups: (call: Int, answer: CallBatch.DataReference)?
    private var shadowStack: (call: Int, answer: CallBatch.DataReference)?

    init(leader status: ProcessStatus) {
        leader = CredentialsResource.capture(status)
        seccompMode = Int64(status.numbers("Seccomp").first ?? 0)
        seccompFilters = status.numbers("Seccomp_filters").first ?? 0
    }

    /// More groups than these are not compared.
    private static let mostGroups = 64

    mutating func ask(_ batch: inout CallBatch) {
        guard leader.uid.count == 4, leader.gid.count == 4 else { return }
        for (call, expected) in [(SystemCall.getresuid, leader.uid), (.getresgid, leader.gid)] {
            let answer = batch.space(12)
            batch.call(
                call, .address(answer), .address(answer.advanced(by: 4)), .address(answer.advanced(by: 8)),
                doing: "reading a thread's IDs")
            ids.append((answer, Array(expected.prefix(3))))
        }
        func expect(_ expected: some BinaryInteger, _ call: Int) { results.append((call, Int64(expected))) }
        // An ID that cannot be changes nothing, and both calls tell what is set.
        let nobody = CallBatch.Argument.value(0xffff_ffff)
        expect(leader.uid[3], batch.call(.setfsuid, nobody, doing: "reading a thread's file system user"))
        expect(leader.gid[3], batch.call(.setfsgid, nobody, doing: "reading a thread's file system group"))
        let list = batch.space(Self.mostGroups * 4)
        groups = (batch.call(.getgroups, .int(Self.mostGroups), .address(list), must: false, doing: ""), list)
        let header = batch.words([0x2008_0522]), answer = batch.space(24)  // _LINUX_CAPABILITY_VERSION_3, this thread
        func half(_ set: UInt64, _ shift: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: set >> shift) }
        sets = (
            batch.call(.capget, .address(header), .address(answer), must: false, doing: ""), answer,
            [0, 32].flatMap { shift in
                [leader.capEffective, leader.capPermitted, leader.capInheritable].map { half($0, shift) }
            }
        )
        expect(leader.noNewPrivs ? 1 : 0, batch.call(.prctl, .value(39), must: false, doing: ""))
        expect(seccompMode, batch.call(.prctl, .value(21), must: false, doing: ""))
        for capability in 0..<64 {
            let bit: UInt64 = 1 << UInt64(capability)
            if leader.capBounding & bit != 0 {
                expect(1, batch.call(.prctl, .value(23), .int(capability), must: false, doing: ""))
            }
            // Only what is both permitted and inheritable can be ambient.
            if leader.capPermitted & leader.capInheritable & bit != 0 {
                expect(
                    leader.capAmbient & bit == 0 ? 0 : 1,
                    batch.call(
                        .prctl, .value(47), .value(1), .int(capability), .value(0), .value(0), must: false, doing: ""))
            }
        }
        let features = batch.space(8)
        shadowStack = (
            batch.call(.archPrctl, .value(0x5005) /* ARCH_SHSTK_STATUS */, .address(features), must: false, doing: ""),
            features
        )
    }

    /// - Parameter known: of the thread, from before.
    func isLikeLeader(_ answers: CallResults, _ tracee: Tracee, _ known: SourceProcess.KnownThread) -> Bool {
        guard let groups, let sets, let shadowStack, known.bounding == leader.capBounding else { return false }
        func words(_ answer: CallBatch.DataReference, _ count: Int) -> [UInt32] {
            (0..<count).map { UInt32(bitPattern: answers.int32(answer, at: $0)) }
        }
        return ids.allSatisfy { words($0.answer, 3) == $0.expected }
            && results.allSatisfy { answers[$0.call] == $0.expected }
            && answers[groups.call] == Int64(leader.groups.count)
            && words(groups.answer, leader.groups.count) == leader.groups
            && answers[sets.call] == 0 && words(sets.answer, 6) == sets.expected
            && (answers[shadowStack.call] < 0 || answers.word(shadowStack.answer) == 0)
            && (seccompMode == 0 || tracee.hasSeccompFilters(seccompFilters))
    }
}

enum CredentialsResource {
    static func capture(_ status: ProcessStatus) -> Credentials {
        var credentials = Credentials()
        credentials.uid = status.numbers("Uid").map { UInt32($0) }
        credentials.gid = status.numbers("Gid").map { UInt32($0) }
        credentials.groups = status.numbers("Groups").map { UInt32($0) }
        credentials.capInheritable = status.hex("CapInh")
        credentials.capPermitted = status.hex("CapPrm")
        credentials.capEffective = status.hex("CapEff")
        credentials.capBounding = status.hex("CapBnd")
        credentials.capAmbient = status.hex("CapAmb")
        credentials.noNewPrivs = status.numbers("NoNewPrivs").first == 1
        return credentials
    }

    /// The fields of the status file that `capture` and `Uncarried` read: threads mostly have the same, which is
    /// quicker to see than to read.
    static func fields(_ status: ProcessStatus) -> [ArraySlice<UInt8>?] { fieldNames.map(status.bytes) }
    private static let fieldNames = [
        "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
        "Seccomp_filters", "x86_Thread_features",
    ]

    /// Adds the question that the status file does not answer.
    static func ask(_ batch: inout CallBatch) -> Int { batch.call(.prctl, .value(27), doing: "reading the securebits") }

    /// Adds the calls that leave a thread's bounding set with no more than these.
    static func limitBoundingSet(_ held: UInt64, to kept: UInt64, _ batch: inout CallBatch) {
        for capability in 0..<41 where held & ~kept & 1 << capability != 0 {
            batch.call(
                .prctl, .value(24), .int(capability), must: false,
                doing: "dropping capability \(capability) from the bounding set")
        }
    }

    /// Adds the calls that leave a thread of the stub, which has every capability it needs, with exactly these.
    ///
    /// - Parameter held: the bounding set that the thread has.
    static func drop(_ c: Credentials, held: UInt64, _ batch: inout CallBatch) {
        limitBoundingSet(held, to: c.capBounding, &batch)
        let groups = batch.bytes(c.groups.flatMap { group in withUnsafeBytes(of: group) { Array($0) } })
        batch.call(.setgroups, .int(c.groups.count), .address(groups), doing: "setting supplementary groups")
        batch.call(.prctl, .value(8), .value(1), doing: "keeping capabilities over the change of user")
        batch.call(.setresgid, .int(c.gid[0]), .int(c.gid[1]), .int(c.gid[2]), doing: "setting group IDs")
        batch.call(.setresuid, .int(c.uid[0]), .int(c.uid[1]), .int(c.uid[2]), doing: "setting user IDs")
        if c.gid[3] != c.gid[1] { batch.call(.setfsgid, .int(c.gid[3]), doing: "setting the file system group ID") }
        if c.uid[3] != c.uid[1] { batch.call(.setfsuid, .int(c.uid[3]), doing: "setting the file system user ID") }
        batch.call(.prctl, .value(8), .value(0), doing: "leaving the keeping of capabilities")
        // SETPCAP has to be effective for the securebits.
        let setpcap: UInt64 = 1 << 8
        addCapset(c.capPermitted | setpcap, effective: c.capEffective | setpcap, inheritable: c.capInheritable, &batch)
        batch.call(.prctl, .value(28), .int(c.securebits), doing: "setting the securebits")
        addCapset(c.capPermitted, effective: c.capEffective, inheritable: c.capInheritable, &batch)
        for capability in 0..<41 where c.capAmbient & 1 << capability != 0 {
            batch.call(
                .prctl, .value(47), .value(2), .int(capability), .value(0), .value(0),
                doing: "raising ambient capability \(capability)")
        }
        if c.noNewPrivs {
            batch.call(.prctl, .value(38), .value(1), .value(0), .value(0), .value(0), doing: "setting no_new_privs")
        }
    }

    private static func addCapset(_ permitted: UInt64, effective: UInt64, inheritable: UInt64, _ batch: inout CallBatch)
    {
        let header = batch.words([0x2008_0522])  // _LINUX_CAPABILITY_VERSION_3, this thread
        func half(_ set: UInt64, _ shift: UInt64) -> UInt64 { set >> shift & 0xffff_ffff }
        let data = batch.words([
            half(effective, 0) | half(permitted, 0) << 32, half(inheritable, 0) | half(effective, 32) << 32,
            half(permitted, 32) | half(inheritable, 32) << 32,
        ])
        batch.call(.capset, .address(header), .address(data), doing: "setting capabilities")
    }
}
