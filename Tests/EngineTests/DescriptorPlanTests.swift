// The order in which descriptors are made, worked off on a table that gives numbers as the kernel does.
import Testing

@testable import Engine

@Suite struct DescriptorPlanTests {
    /// What stands at a number: a file of the plan, or one of the stub's.
    private enum Entry: Equatable { case file(Int), stub(Int32) }

    /// A descriptor table that does what the steps say.
    private struct Table {
        var entries: [Int32: (entry: Entry, closeOnExec: Bool)] = [:]
        /// Items of sets, by their index.
        var items: [Int: (number: Int32, file: Int, set: Int)] = [:]
        let contents: [DescriptorPlan.Content]
        var highest: Int32 = 0

        mutating func give(_ entry: Entry, at expected: Int32) {
            let lowest = (0...).first { entries[$0] == nil }!
            #expect(lowest == expected)
            entries[lowest] = (entry, true)
            highest = max(highest, lowest)
        }
        mutating func run(_ step: DescriptorPlan.Step) throws {
            switch step {
            case .make(let file, let number): give(.file(file), at: number)
            case .makePair(_, let first, let second):
                // Which pipe it is shows when its ends are placed: an end is known by its kind alone here.
                give(.file(-1), at: first)
                give(.file(-2), at: second)
            case .duplicate(let from, let to, let closeOnExec):
                entries[to] = (try #require(entries[from]).entry, closeOnExec)
                highest = max(highest, to)
            case .setCloseOnExec(let number, let isSet):
                try #require(entries[number] != nil); entries[number]!.1 = isSet
            case .close(let number): #expect(entries.removeValue(forKey: number) != nil)
            case .add(let item, let set):
                #expect(entries[item.number]?.entry == .file(item.file))
                #expect(entries[set]?.entry == .file(item.set))
                items[item.index] = (item.number, item.file, item.set)
            }
        }
    }

    private func check(
        open: [Int32] = [0, 1, 2], _ contents: [DescriptorPlan.Content], _ places: [DescriptorPlan.Place],
        _ items: [DescriptorPlan.Item] = []
    ) throws {
        let plan = try DescriptorPlan(open: open, contents: contents, places: places, items: items)
        var table = Table(contents: contents)
        for number in open { table.entries[number] = (.stub(number), false) }
        for step in plan.steps { try table.run(step) }
        #expect(table.entries.count == places.count, "\(plan.steps)")
        for place in places {
            let found = try #require(table.entries[place.number])
            let expected: Entry =
                switch contents[place.file] {
                case .single: .file(place.file)
                case .stream(let number): .stub(number)
                case .pair(_, let isSecond): .file(isSecond ? -2 : -1)
                }
            #expect(found.entry == expected && found.closeOnExec == place.closeOnExec, "\(place): \(found)")
        }
        #expect(table.items.count == items.count)
        // Beyond the program's own numbers there are at most those for what waits.
        let own = (places.map(\.number) + items.map(\.number) + open).max() ?? 0
        #expect(table.highest <= own + 4)
    }

    private func place(_ number: Int32, _ file: Int, _ closeOnExec: Bool = false) -> DescriptorPlan.Place {
        DescriptorPlan.Place(number: number, file: file, closeOnExec: closeOnExec)
    }

    @Test func aFileWithoutAGapIsMadeInOneStep() throws {
        let contents: [DescriptorPlan.Content] = [.stream(0), .stream(1), .stream(2)] + (0..<100).map { _ in .single }
        let places = (0..<103).map { place(Int32($0), $0, $0 > 2) }
        try check(contents, places)
        let plan = try DescriptorPlan(open: [0, 1, 2], contents: contents, places: places, items: [])
        #expect(plan.steps.count == 103)
    }

    @Test func streamsChangeTheirPlaces() throws {
        try check([.stream(0), .stream(1), .stream(2)], [place(0, 2), place(1, 0), place(2, 1), place(9, 1, true)])
        try check([.single, .stream(1)], [place(0, 0), place(1, 0), place(2, 0), place(3, 1)])
        try check(open: [0, 1, 2, 3, 7], [.single], [place(1, 0)])
        try check([], [])
    }

    @Test func endsOfAPipeChangeTheirPlaces() throws {
        for (read, write) in [(3, 4), (4, 3), (3, 9), (9, 3), (700, 3)] as [(Int32, Int32)] {
            try check(
                [.pair(1, isSecond: false), .pair(1, isSecond: true), .single, .stream(1)],
                [place(read, 0), place(write, 1, true), place(5, 2), place(6, 0), place(1, 3)])
        }
    }

    @Test func itemsAreAddedUnderTheirOldNumbers() throws {
        // The file is at 8 and was added as 5, which is nobody's, the set's own, another's, a stream's now.
        for number in [5, 4, 6, 1] as [Int32] {
            let item = DescriptorPlan.Item(number: number, file: 1, set: 0, index: 0)
            try check(
                [.single, .single, .single, .stream(1)], [place(4, 0), place(8, 1, true), place(6, 2), place(1, 3)],
                [item])
        }
    }

    @Test func anyTableIsMade() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            var contents: [DescriptorPlan.Content] = []
            for file in 0..<Int.random(in: 1...12, using: &random) {
                switch Int.random(in: 0..<4, using: &random) {
                case 0: contents.append(.stream(Int32.random(in: 0...2, using: &random)))
                case 1: contents += [.pair(UInt64(file), isSecond: true), .pair(UInt64(file), isSecond: false)]
                default: contents.append(.single)
                }
            }
            var numbers = (0..<Int32(4 * contents.count)).shuffled(using: &random)
            var places = contents.indices.map { place(numbers.removeLast(), $0, Bool.random(using: &random)) }
            places += (0..<contents.count).map { _ in place(numbers.removeLast(), contents.indices.randomElement()!) }
            let singles = contents.indices.filter { contents[$0] == .single }
            var items: [DescriptorPlan.Item] = []
            if singles.count > 1 {
                for index in 0..<4 {
                    let file = singles.randomElement()!, set = singles.randomElement()!
                    let number = Bool.random(using: &random) ? numbers.randomElement()! : places.randomElement()!.number
                    if file == set || places.contains(where: { $0.number == number && $0.file == file }) { continue }
                    items.append(.init(number: number, file: file, set: set, index: index))
                }
            }
            try check(contents, places, items)
        }
    }

    @Test func aTableThatCannotBeIsRefused() {
        #expect(throws: DescriptorPlan.Impossible.self) {
            try DescriptorPlan(open: [], contents: [.single], places: [place(1, 0), place(1, 0)], items: [])
        }
        #expect(throws: DescriptorPlan.Impossible.self) {
            try DescriptorPlan(open: [], contents: [.single], places: [place(1, 1)], items: [])
        }
        #expect(throws: DescriptorPlan.Impossible.self) {
            try DescriptorPlan(open: [], contents: [.single], places: [place(-1, 0)], items: [])
        }
        #expect(throws: DescriptorPlan.Impossible.self) {
            try DescriptorPlan(open: [0, 1, 2], contents: [.stream(5)], places: [place(1, 0)], items: [])
        }
        #expect(throws: DescriptorPlan.Impossible.self) {
            try DescriptorPlan(
                open: [], contents: [.pair(1, isSecond: true)], places: [place(1, 0)], items: [])
        }
        let item = DescriptorPlan.Item(number: 5, file: 0, set: 1, index: 0)
        #expect(throws: DescriptorPlan.Impossible.self) {
            try DescriptorPlan(open: [], contents: [.single, .single], places: [place(1, 0)], items: [item])
        }
    }
}
