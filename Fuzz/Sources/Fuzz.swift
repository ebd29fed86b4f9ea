// Fuzzing by libFuzzer of what another host can send: `fuzz decoders|sessions|sources|seeds [libFuzzer's options]`.
import CFuzzer
import Glibc

@main struct Fuzz {
    static func main() throws {
        var arguments = CommandLine.arguments
        // libFuzzer's options are not the target's name. To merge it starts this program again, with its options only.
        let own = "APUS_FUZZ_TARGET"
        let target = getenv(own).map { String(cString: $0) } ?? (arguments.count > 1 ? arguments.remove(at: 1) : "")
        setenv(own, target, 1)
        if target == "seeds", arguments.count == 2 { return try Seeds.write(to: arguments[1]) }
        signal(SIGPIPE, SIG_IGN)
        let run: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
        // libFuzzer ends by exit(3), whatever it has found.
        switch target {
        case "decoders":
            run = Decoders.run
            atexit { Decoders.finish() }
        case "sessions":
            try Sessions.prepare()
            run = Sessions.run
            atexit { Sessions.finish() }
        case "sources":
            try Sources.prepare()
            run = Sources.run
            atexit { Sources.finish() }
        default:
            print("usage: fuzz decoders|sessions|sources [libFuzzer's options], fuzz seeds FOLDER")
            exit(2)
        }
        Handled.watch()
        var vector = arguments.map { strdup($0) } + [nil]
        vector.withUnsafeMutableBufferPointer { vector in
            var count = Int32(vector.count - 1)
            var start = vector.baseAddress
            exit(LLVMFuzzerRunDriver(&count, &start, run))
        }
    }
}

/// What libFuzzer's own main, which is not used, would call.
@_cdecl("LLVMFuzzerTestOneInput") func testOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> Int32 {
    Decoders.run(data, size)
}
