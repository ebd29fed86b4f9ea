/// A list in chunks: growing never copies what is there, which would delay a client by milliseconds.
struct ChunkedList<Element> {
    private static var size: Int { 4096 }
    private var chunks: [[Element]] = []
    private(set) var count = 0

    mutating func append(_ element: Element) {
        if count % Self.size == 0 {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(Self.size)
        }
        chunks[chunks.count - 1].append(element)
        count += 1
    }

    subscript(index: Int) -> Element {
        get { chunks[index / Self.size][index % Self.size] }
        _modify { yield &chunks[index / Self.size][index % Self.size] }
    }

    var all: [Element] { Array(chunks.joined()) }
}
