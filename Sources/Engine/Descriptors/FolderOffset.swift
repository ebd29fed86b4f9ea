// How far a directory has been read. An offset means something to one file system only: begin and end are carried.
import CLinux
import Glibc
import LinuxKernel

enum FolderOffset {
    /// The offset of an open directory that is neither at its begin nor at its end, or nil.
    static func between(_ probe: DescriptorProbe) -> Int? {
        let offset = lseek(probe.copy.number, 0, SEEK_CUR)
        if offset <= 0 { return nil }
        // Another description of the same directory, read from there.
        guard let folder = opendir("/proc/self/fd/\(probe.copy.number)") else { return offset }
        defer { closedir(folder) }
        seekdir(folder, offset)
        return readdir(folder) == nil ? nil : offset
    }

    /// Reads an open directory to its end.
    static func moveToEnd(_ copy: FileDescriptor, _ path: String) throws(KernelError) {
        // closedir closes what it was given; a duplicate shares the offset.
        let duplicate = try check(clx_fcntl(copy.number, F_DUPFD_CLOEXEC, 0), "reading \(path) to its end")
        guard let folder = fdopendir(duplicate) else {
            let number = Glibc.errno
            close(duplicate)
            throw KernelError("reading \(path) to its end", Errno(number))
        }
        while readdir(folder) != nil {}
        closedir(folder)
    }
}
