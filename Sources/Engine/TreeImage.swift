// A tree of processes as an image: its processes, and what they refer to.

extension TreeImage {
    /// The format this code writes and reads.
    public static let currentVersion: UInt32 = 2

    /// A tree of one process.
    init(_ parts: ProcessParts, files: [OpenFile]) {
        self.init()
        version = Self.currentVersion
        var table = DescriptorTableImage()
        table.descriptors = parts.descriptors
        (processes, spaces, tables) = ([parts.process], [parts.space], [table])
        self.files = files
    }
}

/// A process with the objects of its tree that it refers to.
struct ProcessParts {
    var process = ProcessImage()
    var space = AddressSpace()
    /// Its descriptor table.
    var descriptors: [Descriptor] = []
    /// Its threads, once they are known, and what acts on them.
    var threads = ProcessThreads()
}

// The long lists of an image, changed in place: a generated accessor copies the whole list at each change, so that
// filling one with thousands of elements would take a time that grows with the square of their number.

extension TreeImage {
    mutating func editFiles<T, E: Error>(_ body: (inout [OpenFile]) throws(E) -> T) throws(E) -> T {
        var list: [OpenFile] = []
        swap(&list, &files)
        defer { files = list }
        return try body(&list)
    }
}

extension ProcessThreads {
    mutating func editThreads<T, E: Error>(_ body: (inout [ThreadImage]) throws(E) -> T) throws(E) -> T {
        var list: [ThreadImage] = []
        swap(&list, &threads)
        defer { threads = list }
        return try body(&list)
    }
}
