// The host name and the domain name that a container shows.
import Glibc
import LinuxKernel

struct HostNames: Codable, Sendable, Equatable {
    /// Bytes: the kernel takes any.
    var host, domain: [UInt8]

    /// Those of the calling thread's UTS namespace.
    init() {
        var names = utsname()
        uname(&names)
        host = withUnsafeBytes(of: &names.nodename) { [UInt8]($0.prefix { $0 != 0 }) }
        domain = withUnsafeBytes(of: &names.__domainname) { [UInt8]($0.prefix { $0 != 0 }) }
    }

    /// Sets those of the calling thread's UTS namespace.
    func set() throws(KernelError) {
        try checkC(sethostname(host.map { CChar(bitPattern: $0) }, host.count), "setting the host name")
        try checkC(setdomainname(domain.map { CChar(bitPattern: $0) }, domain.count), "setting the domain name")
    }
}
