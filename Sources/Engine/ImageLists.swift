// The long lists of an image, changed in place: a generated accessor copies the whole list at each change, so that
// filling one with thousands of elements would take a time that grows with the square of their number.

extension ProcessImage {
    mutating func editFiles<T, E: Error>(_ body: (inout [OpenFile]) throws(E) -> T) throws(E) -> T {
        var list: [OpenFile] = []
        swap(&list, &files)
        defer { files = list }
        return try body(&list)
    }

    mutating func editThreads<T, E: Error>(_ body: (inout [ThreadImage]) throws(E) -> T) throws(E) -> T {
        var list: [ThreadImage] = []
        swap(&list, &threads)
        defer { threads = list }
        return try body(&list)
    }
}
