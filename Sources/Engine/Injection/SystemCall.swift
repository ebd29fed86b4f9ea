// Numbers of the system calls that are injected (x86-64, asm/unistd_64.h).

/// A system call by its number.
struct SystemCall: RawRepresentable, Sendable {
    let rawValue: UInt64
    init(rawValue: UInt64) { self.rawValue = rawValue }
    private init(_ number: UInt64) { rawValue = number }

    static let open = SystemCall(2), close = SystemCall(3), lseek = SystemCall(8), mmap = SystemCall(9)
    static let mprotect = SystemCall(10), munmap = SystemCall(11), rtSigaction = SystemCall(13)
    static let mremap = SystemCall(25), madvise = SystemCall(28), getitimer = SystemCall(36), setitimer = SystemCall(38)
    static let socket = SystemCall(41), exit = SystemCall(60), fcntl = SystemCall(72), chdir = SystemCall(80)
    static let umask = SystemCall(95), setpgid = SystemCall(109), setgroups = SystemCall(116)
    static let setresuid = SystemCall(117), setresgid = SystemCall(119), setfsuid = SystemCall(122)
    static let setfsgid = SystemCall(123), capset = SystemCall(126), rtSigqueueinfo = SystemCall(129)
    static let sigaltstack = SystemCall(131), personality = SystemCall(135), mlock = SystemCall(149)
    static let prctl = SystemCall(157), setTidAddress = SystemCall(218), timerCreate = SystemCall(222)
    static let timerSettime = SystemCall(223), timerGettime = SystemCall(224)
    static let epollCtl = SystemCall(233), openat = SystemCall(257), setRobustList = SystemCall(273)
    static let eventfd2 = SystemCall(290), epollCreate1 = SystemCall(291), dup3 = SystemCall(292)
    static let pipe2 = SystemCall(293), rtTgsigqueueinfo = SystemCall(297), prlimit64 = SystemCall(302)
    static let userfaultfd = SystemCall(323), rseq = SystemCall(334), clone3 = SystemCall(435)
    static let mlock2 = SystemCall(325), schedSetaffinity = SystemCall(203), schedGetaffinity = SystemCall(204)
    static let ioprioSet = SystemCall(251), ioprioGet = SystemCall(252), getMempolicy = SystemCall(239)
    static let getgroups = SystemCall(115), getresuid = SystemCall(118), getresgid = SystemCall(120)
    static let capget = SystemCall(125), archPrctl = SystemCall(158)
    static let rtSigtimedwait = SystemCall(128), unshare = SystemCall(272), setns = SystemCall(308)
}
