// The long lists of an image, changed in place: a generated accessor copies the whole list at each change, so that
// filling one with thousands of elements would take a time that grows with the square of their number.

extension ProcessImage {
    mutating func editFiles<T>(_ body: (inout [OpenFile]) throws -> T) rethrows -> T {
        var list: [OpenFile] = []
        swap(&list, &files)
        defer { files = list }
        return try body(&list)
    }

    mutating func editThreads<T>(_ body: (inout [ThreadImage]) throws -> T) rethrows -> T {
        var list: [ThreadImage] = []
        swap(&list, &threads)
        defer { threads = list }
        return try body(&list)
    }
}
