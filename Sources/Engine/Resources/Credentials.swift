// User and group IDs, capabilities and their kin, which the kernel keeps for each thread.
import Glibc
import LinuxKernel

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

    /// Adds the calls that leave a thread of the stub, which has every capability it needs, with exactly these.
    static func drop(_ c: Credentials, _ batch: inout CallBatch) {
        for capability in 0..<41 where c.capBounding & 1 << capability == 0 {
            batch.call(
                .prctl, .value(24), .int(capability), must: false,
                doing: "dropping capability \(capability) from the bounding set")
        }
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
