// The object behind a shared anonymous mapping. A page that it does not have is zero, whatever page tables show.
import CLinux
import Glibc
import LinuxKernel

struct SharedObject: ~Copyable {
    private let file: FileDescriptor
    private let area: TrackedArea

    /// Opens the object of an area; nil if the process, which runs, has changed the mapping since its maps were read.
    init?(of pid: Int32, _ area: TrackedArea) throws(KernelError) {
        let (low, high) = (String(area.range.lowerBound, radix: 16), String(area.range.upperBound, radix: 16))
        do throws(KernelError) {
            file = try FileDescriptor(opening: "/proc/\(pid)/map_files/\(low)-\(high)", O_RDONLY)
        } catch {
            guard error.errno == .noEntry else { throw error }
            return nil
        }
        self.area = area
    }

    /// What it holds of some ranges of the area.
    func data(in ranges: AddressRanges) throws(KernelError) -> [AddressRange] {
        var found: [AddressRange] = []
        for range in ranges.ranges {
            let origin = area.range.lowerBound &- area.offset
            var at = range.lowerBound
            while at < range.upperBound {
                guard let start = try seek(to: at &- origin, clx_SEEK_DATA), start &+ origin < range.upperBound else {
                    break
                }
                let end = min(try seek(to: start, clx_SEEK_HOLE) ?? start, range.upperBound &- origin)
                guard start < end else { break }
                found.append(start &+ origin..<end &+ origin)
                at = end &+ origin
            }
        }
        return found
    }

    /// The first place of data or of a hole from `offset` on; nil where there is none.
    private func seek(to offset: UInt64, _ what: Int32) throws(KernelError) -> UInt64? {
        let place = clx_lseek(file.number, Int64(bitPattern: offset), what)
        if place == -Int64(ENXIO) { return nil }
        return UInt64(try check(place, "looking for the pages of shared memory \(area.range)"))
    }
}
