// A batch of system calls for a traced process: built here, laid into the injection area, run by the blob.
import CLinux
import LinuxKernel

/// System calls that one ptrace stop serves, with the memory they read and write.
struct CallBatch {
    /// An argument of a call.
    enum Argument {
        case value(UInt64)
        /// The result of an earlier call of this batch, by its index.
        case result(Int)
        /// The address of memory of this batch.
        case address(DataReference)
        /// The 32-bit value that stands in memory of this batch when the call runs.
        case word(DataReference)

        static func int(_ value: some BinaryInteger) -> Argument { .value(UInt64(truncatingIfNeeded: value)) }
    }
    /// A place in the batch's own memory.
    struct DataReference {
        var offset: Int
        var length: Int
        func advanced(by bytes: Int) -> DataReference { DataReference(offset: offset + bytes, length: length - bytes) }
    }

    private struct Call {
        var number: UInt64
        var arguments: [Argument]
        var must: Bool
        var purpose: () -> String
    }
    private var calls: [Call] = []
    private(set) var data: [UInt8] = []
    private var addresses: [(target: Int, place: Int)] = []
    private var expectations: [(answer: Argument, value: Int32)] = []

    var count: Int { calls.count }
    var isEmpty: Bool { calls.isEmpty }

    /// Adds a call; its index names the result. With `must`, a failure ends the batch and is thrown.
    @discardableResult
    mutating func call(
        _ call: SystemCall, _ arguments: Argument..., must: Bool = true,
        doing purpose: @autoclosure @escaping () -> String
    ) -> Int {
        calls.append(Call(number: call.rawValue, arguments: arguments, must: must, purpose: purpose))
        return calls.count - 1
    }

    /// Adds bytes for calls to read.
    mutating func bytes(_ bytes: some Collection<UInt8>) -> DataReference {
        defer {
            data.append(contentsOf: bytes)
            data.append(contentsOf: repeatElement(0, count: (16 - data.count % 16) % 16))
        }
        return DataReference(offset: data.count, length: bytes.count)
    }
    /// Adds a zero-terminated string.
    mutating func string(_ text: String) -> DataReference { bytes(Array(text.utf8) + [0]) }
    /// Adds zeroed memory for calls to write.
    mutating func space(_ count: Int) -> DataReference { bytes(repeatElement(0, count: count)) }
    /// Adds integers.
    mutating func words(_ words: [UInt64]) -> DataReference {
        bytes(words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } })
    }

    /// Has the address of one piece of memory written into another when the batch is laid out.
    mutating func setAddress(of target: DataReference, at place: DataReference) {
        addresses.append((target.offset, place.offset))
    }

    /// The answer has to be this one, or the batch has failed: later calls rely on it.
    mutating func expect(_ answer: Argument, toBe value: Int32) { expectations.append((answer, value)) }
    mutating func expect(_ words: DataReference, toBe values: [Int32]) {
        for (index, value) in values.enumerated() { expect(.word(words.advanced(by: 4 * index)), toBe: value) }
    }

    /// Bytes the batch takes in the injection area.
    var size: Int { Int(CLX_BATCH_HEADER) + calls.count * Int(CLX_CALL_SIZE) + data.count }

    /// Lays the batch out at `local`, which the process sees at `remote`.
    func write(to local: UnsafeMutableRawPointer, remote: UInt64, ending: Int, frame: UInt64) {
        let dataOffset = Int(CLX_BATCH_HEADER) + calls.count * Int(CLX_CALL_SIZE)
        var header = clx_batch()
        header.count = UInt64(calls.count)
        header.ending = UInt64(ending)
        header.frame = frame
        header.linger_seconds = 1
        local.storeBytes(of: header, as: clx_batch.self)
        for (index, call) in calls.enumerated() {
            var raw = clx_call()
            raw.number = call.number
            raw.flags = call.must ? UInt64(CLX_CALL_MUST) : 0
            withUnsafeMutableBytes(of: &raw.arguments) { words in
                for (i, argument) in call.arguments.enumerated() {
                    let word: UInt64
                    switch argument {
                    case .value(let value): word = value
                    case .result(let index):
                        word = UInt64(index)
                        raw.references |= 1 << UInt64(i)
                    case .address(let reference): word = remote + UInt64(dataOffset + reference.offset)
                    case .word(let reference):
                        word = remote + UInt64(dataOffset + reference.offset)
                        raw.references |= 1 << UInt64(8 + i)
                    }
                    words.storeBytes(of: word, toByteOffset: i * 8, as: UInt64.self)
                }
            }
            local.storeBytes(
                of: raw, toByteOffset: Int(CLX_BATCH_HEADER) + index * Int(CLX_CALL_SIZE), as: clx_call.self)
        }
        data.withUnsafeBytes {
            if let base = $0.baseAddress { (local + dataOffset).copyMemory(from: base, byteCount: $0.count) }
        }
        for (target, place) in addresses {
            local.storeBytes(
                of: remote + UInt64(dataOffset + target), toByteOffset: dataOffset + place, as: UInt64.self)
        }
    }

    /// What the calls answered; throws the first failure of a call that had to succeed.
    func results(at local: UnsafeRawPointer, of task: Int32) throws(KernelError) -> CallResults {
        let executed = Int(local.load(as: clx_batch.self).executed)
        var results: [Int64] = []
        results.reserveCapacity(calls.count)
        for index in 0..<executed {
            let result = local.load(
                fromByteOffset: Int(CLX_BATCH_HEADER) + index * Int(CLX_CALL_SIZE) + 56, as: Int64.self)
            if calls[index].must, result < 0, result > -4096 {
                throw KernelError("\(calls[index].purpose()), injected into task \(task)", Errno(Int32(-result)))
            }
            results.append(result)
        }
        guard executed == calls.count else {
            throw KernelError(
                "running \(calls.count) injected calls in task \(task), stopped after \(executed)", .interrupted)
        }
        let dataOffset = Int(CLX_BATCH_HEADER) + calls.count * Int(CLX_CALL_SIZE)
        let answers = CallResults(
            values: results, data: [UInt8](UnsafeRawBufferPointer(start: local + dataOffset, count: data.count)))
        for (answer, value) in expectations {
            let found: Int64 =
                switch answer {
                case .result(let index): answers[index]
                case .word(let place): Int64(answers.int32(place))
                default: Int64(value)
                }
            guard found == value else {
                throw KernelError(
                    "an injected call in task \(task) answered \(found) where \(value) was to be", .invalid)
            }
        }
        return answers
    }
}

/// The answers of a batch that has run.
struct CallResults {
    let values: [Int64]
    let data: [UInt8]

    subscript(index: Int) -> Int64 { values[index] }
    func bytes(_ reference: CallBatch.DataReference) -> [UInt8] {
        Array(data[reference.offset..<reference.offset + reference.length])
    }
    func word(_ reference: CallBatch.DataReference, at index: Int = 0) -> UInt64 {
        data.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: reference.offset + index * 8, as: UInt64.self) }
    }
    func int32(_ reference: CallBatch.DataReference, at index: Int = 0) -> Int32 {
        data.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: reference.offset + index * 4, as: Int32.self) }
    }
}
