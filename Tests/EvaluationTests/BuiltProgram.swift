import Glibc
import LinuxKernel

/// The apus program that was built with these tests.
enum BuiltProgram {
    /// The build folder is that of the test bundle, which is mapped into this process.
    static func path() throws -> String? {
        for line in try SmallFile.text("/proc/self/maps").split(separator: "\n") where line.hasSuffix(".xctest") {
            guard let start = line.firstIndex(of: "/"), let end = line.lastIndex(of: "/") else { continue }
            let path = "\(line[start..<end])/apus"
            if access(path, X_OK) == 0 { return path }
        }
        return nil
    }
}
