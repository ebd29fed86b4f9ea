// Pressure stall information: who opens a file of it for writing may have set a trigger, which the kernel shows nobody.
import CLinux
import Glibc

enum PressureFile {
    /// Why this descriptor cannot be carried: opened again by its path it would be without its trigger.
    static func obstacle(_ probe: DescriptorProbe) -> String? {
        guard probe.type == S_IFREG, probe.flags & O_ACCMODE != O_RDONLY else { return nil }
        guard probe.link.hasPrefix("/proc/pressure/") || probe.link.hasSuffix(".pressure") else { return nil }
        return "\(probe.link) opened for writing: it may hold a PSI trigger, not carried yet"
    }
}
