// Which descriptors of a process share an open file. The kernel tells of any two whether they do, and else which of
// both files comes first in an order of its own: so they are sorted, where comparing all pairs would take far too long.
import CLinux
import LinuxKernel

/// The descriptors of a process by the open files that they lead to.
///
/// While a file is open its place in the kernel's order stays. So the look in the freeze, which begins with the order
/// that the look before it found, has to compare each number with its neighbour only. Nothing is kept open between two
/// looks.
struct OpenFiles {
    let pid: Int32
    /// Each file's numbers, ascending; the files in the kernel's order.
    private var sorted: [[Int32]] = []

    init(of pid: Int32) { self.pid = pid }

    /// Each file's numbers, ascending; the files by their lowest number.
    var files: [[Int32]] { sorted.sorted { $0[0] < $1[0] } }

    /// Looks again. What is opened or closed meanwhile by a process that runs may be missing, or be there still.
    mutating func look() throws(KernelError) {
        let open = try ProcessFiles.descriptors(of: pid)
        let former = sorted.joined(), known = Set(former), now = Set(open)
        var numbers = former.filter(now.contains) + open.filter { !known.contains($0) }
        if !group(numbers) {
            numbers.sort { compare($0, $1) == .before }
            group(numbers)
        }
        for index in sorted.indices where sorted[index].count > 1 { sorted[index].sort() }
    }

    /// Puts numbers together whose neighbours lead to the same file; false if they were not in order.
    @discardableResult private mutating func group(_ numbers: [Int32]) -> Bool {
        var isInOrder = true
        sorted = []
        sorted.reserveCapacity(numbers.count)
        for number in numbers {
            switch sorted.last.map({ compare(number, $0[0]) }) {
            case .same: sorted[sorted.count - 1].append(number)
            case .before:
                isInOrder = false
                sorted.append([number])
            case .after, .gone, nil: sorted.append([number])
            }
        }
        return isInOrder
    }

    /// A number that leads to the file which an item of an epoll set watches; nil: none does.
    ///
    /// - Parameters:
    ///   - set: the number of the epoll set.
    ///   - item: the number under which the file was added. It may lead elsewhere by now.
    ///   - position: which of the set's items with this number it is, in the order of its fdinfo.
    func number(watchedBy set: Int32, item: Int32, position: UInt32) -> Int32? {
        // struct kcmp_epoll_slot, in the memory of the caller.
        let slot = [UInt32(bitPattern: set), UInt32(bitPattern: item), position]
        return slot.withUnsafeBufferPointer { slot in
            // SAFETY: the kernel reads the three words before the call returns, and they live as long as this closure.
            let address = UInt64(UInt(bitPattern: slot.baseAddress))
            func order(_ number: Int32) -> Order {
                Order(clx_kcmp(pid, pid, Self.epollTarget, UInt64(number), address))
            }
            // Nearly always the number under which it was added.
            if order(item) == .same { return item }
            var low = 0, high = sorted.count
            while low < high {
                let middle = (low + high) / 2
                switch order(sorted[middle][0]) {
                case .same: return sorted[middle][0]
                case .before: low = middle + 1
                case .after: high = middle
                case .gone: return nil
                }
            }
            return nil
        }
    }

    /// How one open file stands to another in the kernel's order.
    private enum Order {
        case same, before, after
        /// One of both is closed by now.
        case gone

        /// From an answer of kcmp(2).
        init(_ answer: Int32) {
            self = answer == 0 ? .same : answer == 1 ? .before : answer == 2 ? .after : .gone
        }
    }
    private func compare(_ one: Int32, _ other: Int32) -> Order {
        Order(clx_kcmp(pid, pid, Self.file, UInt64(one), UInt64(other)))
    }

    /// KCMP_FILE, KCMP_EPOLL_TFD.
    private static let file: Int32 = 0, epollTarget: Int32 = 7
}
