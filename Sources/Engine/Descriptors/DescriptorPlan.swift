// In which order open files are made at the destination, so that each gets its numbers and none is needed besides.

/// The steps that fill an empty descriptor table.
///
/// The kernel gives a new descriptor the lowest number that is free. So files are made in the order of their numbers:
/// most get theirs at once, the others are moved up from a gap. Which number a step gives follows from those before it.
/// What stands in another's place (the stub's standard streams, the files of a pair in the wrong order) waits at a
/// number that the process does not use.
struct DescriptorPlan {
    enum Content: Equatable {
        /// A file that one call makes.
        case single
        /// The destination's own standard stream.
        case stream(Int32)
        /// One call makes both files of a pair: the ends of a pipe.
        case pair(UInt64, isSecond: Bool)
    }
    struct Place: Equatable {
        var number: Int32
        var file: Int
        var closeOnExec: Bool
    }
    /// An item of the epoll set `set` that watches `file`, added under a number that is another file's in the end, or
    /// nobody's.
    struct Item: Equatable {
        var number: Int32
        var file: Int
        var set: Int
        /// Which of the set's items.
        var index: Int
    }
    enum Step: Equatable {
        case make(file: Int, at: Int32)
        /// Of the two files of a pair, given by one of them.
        case makePair(of: Int, first: Int32, second: Int32)
        case duplicate(Int32, to: Int32, closeOnExec: Bool)
        case setCloseOnExec(Int32, Bool)
        case close(Int32)
        /// The item's file stands at its number; the set at `set`.
        case add(Item, set: Int32)
    }

    private(set) var steps: [Step] = []
    /// The number by which each file is reached; nil: none leads to it.
    private(set) var numbers: [Int32?]

    private let contents: [Content]
    private let places: [Int32: Place]
    /// Numbers that the process uses, or an item's.
    private let reserved: Set<Int32>
    /// What is open now.
    private var taken: Set<Int32>
    private var made: [Bool]
    private var streams: [Int32: Int32] = [:]
    private var pairs: [UInt64: (first: Int?, second: Int?)] = [:]
    /// No number below is free, or may be used by what waits.
    private var lowest: Int32 = 0, firstSpare: Int32 = 3

    struct Impossible: Error { let why: String }

    /// - Parameters:
    ///   - open: what is open in the stub; 0 to 2 are its standard streams.
    ///   - places: numbers and their files, each number once.
    init(open: [Int32], contents: [Content], places: [Place], items: [Item]) throws(Impossible) {
        self.contents = contents
        self.places = Dictionary(places.map { ($0.number, $0) }) { first, _ in first }
        reserved = Set(places.map(\.number)).union(items.map(\.number))
        taken = Set(open)
        numbers = Array(repeating: nil, count: contents.count)
        made = Array(repeating: false, count: contents.count)
        guard self.places.count == places.count else { throw Impossible(why: "a descriptor that is there twice") }
        guard (places.map(\.file) + items.flatMap { [$0.file, $0.set] }).allSatisfy(contents.indices.contains),
            reserved.allSatisfy({ $0 >= 0 }), items.allSatisfy({ self.places[$0.number]?.file != $0.file })
        else { throw Impossible(why: "a descriptor without its file") }
        let ascending = places.sorted { $0.number < $1.number }
        for place in ascending.reversed() { numbers[place.file] = place.number }
        for (file, content) in contents.enumerated() {
            guard case .pair(let pair, let isSecond) = content else { continue }
            if isSecond {
                pairs[pair, default: (nil, nil)].second = file
            } else {
                pairs[pair, default: (nil, nil)].first = file
            }
        }
        while reserved.contains(firstSpare) { firstSpare += 1 }

        keepStreams(open)
        let itemsByNumber = Dictionary(grouping: items, by: \.number)
        for number in itemsByNumber.keys.sorted() {
            for item in itemsByNumber[number]! { try add(item) }
        }
        for place in ascending {
            if !made[place.file] { try make(place.file) }
            let first = numbers[place.file]!
            if first != place.number { duplicate(first, to: place.number, place.closeOnExec) }
        }
        for stream in streams.values where !reserved.contains(stream) { close(stream) }
    }

    // ---- Files ---------------------------------------------------------------------------------------------

    /// Makes room at the numbers of the stub's own descriptors; those that the process has too stay, or wait.
    private mutating func keepStreams(_ open: [Int32]) {
        for number in open {
            if number <= 2 && contents.contains(.stream(number)) {
                streams[number] = number
            } else {
                close(number)
            }
        }
        for number in streams.keys.sorted() where reserved.contains(number) {
            if let place = places[number], contents[place.file] == .stream(number), numbers[place.file] == number {
                made[place.file] = true
                steps.append(.setCloseOnExec(number, place.closeOnExec))
            } else {
                streams[number] = vacate(number)
            }
        }
    }

    /// Makes a file and puts it at its first number.
    private mutating func make(_ file: Int) throws(Impossible) {
        guard let place = place(of: file) else { throw Impossible(why: "an open file without a descriptor") }
        switch contents[file] {
        case .stream(let number):
            guard let stream = streams[number] else { throw Impossible(why: "standard stream \(number)") }
            duplicate(stream, to: place.number, place.closeOnExec)
        case .single:
            let number = take()
            steps.append(.make(file: file, at: number))
            move(number, to: place)
        case .pair(let pair, _): try makePair(pair)
        }
        made[file] = true
    }

    private mutating func makePair(_ pair: UInt64) throws(Impossible) {
        let files = pairs[pair]
        guard let first = place(of: files?.first), let second = place(of: files?.second) else {
            throw Impossible(why: "one file of a pair without the other")
        }
        var made = take()
        let other = take()
        steps.append(.makePair(of: first.file, first: made, second: other))
        if first.number == other || second.number == made { made = vacate(made) }
        move(other, to: second)
        move(made, to: first)
        (self.made[first.file], self.made[second.file]) = (true, true)
    }
    private func place(of file: Int?) -> Place? { file.flatMap { numbers[$0] }.flatMap { places[$0] } }

    /// An item is added while its number leads to its file, which has another number, and stays when that is closed.
    private mutating func add(_ item: Item) throws(Impossible) {
        for file in [item.file, item.set] where !made[file] { try make(file) }
        let holder = taken.contains(item.number) ? vacate(item.number) : nil
        duplicate(numbers[item.file]!, to: item.number, true)
        steps.append(.add(item, set: numbers[item.set] == item.number ? holder! : numbers[item.set]!))
        close(item.number)
        if let holder { move(holder, to: places[item.number]!) }
    }

    // ---- Numbers -------------------------------------------------------------------------------------------

    /// The number that the kernel gives next.
    private mutating func take() -> Int32 {
        while taken.contains(lowest) { lowest += 1 }
        taken.insert(lowest)
        return lowest
    }
    private mutating func duplicate(_ from: Int32, to number: Int32, _ closeOnExec: Bool) {
        steps.append(.duplicate(from, to: number, closeOnExec: closeOnExec))
        taken.insert(number)
    }
    private mutating func close(_ number: Int32) {
        steps.append(.close(number))
        taken.remove(number)
        lowest = min(lowest, number)
    }
    /// What was made close-on-exec and stands at `number` goes to its place.
    private mutating func move(_ number: Int32, to place: Place) {
        if number == place.number {
            if !place.closeOnExec { steps.append(.setCloseOnExec(number, false)) }
        } else {
            duplicate(number, to: place.number, place.closeOnExec)
            close(number)
        }
    }
    /// Moves the descriptor at a number to a number that nobody uses.
    private mutating func vacate(_ number: Int32) -> Int32 {
        var spare = firstSpare
        while taken.contains(spare) || reserved.contains(spare) { spare += 1 }
        duplicate(number, to: spare, true)
        close(number)
        return spare
    }
}
