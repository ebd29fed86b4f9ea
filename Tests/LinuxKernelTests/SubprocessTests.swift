import Glibc
import Testing

@testable import LinuxKernel

@Suite(.timeLimit(.minutes(1))) struct SubprocessTests {
    @Test func capturesBothStreams() throws {
        let result = try Subprocess.run(["sh", "-c", "echo out; echo err >&2; pwd"], workingDirectory: "/usr")
        #expect(result.text == "out\n/usr\n" && result.errors == Array("err\n".utf8))
        #expect(try Subprocess.run(["/usr/bin/env"], environment: ["A": "b=c"]).text == "A=b=c\n")
    }

    @Test func saysWhatFailed() throws {
        let error = #expect(throws: SubprocessError.self) {
            try Subprocess.run(["sh", "-c", "echo ' no luck' >&2; exit 3"])
        }
        #expect(error?.reason == .exited(3) && error?.words == "no luck")
        #expect(error?.description.contains("exited with status 3: no luck") == true)
        let missing = #expect(throws: SubprocessError.self) { try Subprocess.run(["no-such-program"]) }
        #expect(missing?.reason == .notStarted(.noEntry))
        let killed = #expect(throws: SubprocessError.self) { try Subprocess.run(["sh", "-c", "kill -9 $$"]) }
        #expect(killed?.reason == .signaled(9))
    }

    @Test func endsWhenItsTimeIsUp() throws {
        let start = ContinuousClock.now
        let error = #expect(throws: SubprocessError.self) {
            try Subprocess.run(["sleep", "100"], timeLimit: .milliseconds(50))
        }
        #expect(error?.reason == .timedOut(.milliseconds(50)))
        #expect(.now - start < .seconds(20))
    }

    /// A daemon that inherits the output must not keep us waiting.
    @Test func doesNotWaitForGrandchildren() throws {
        let start = ContinuousClock.now
        let result = try Subprocess.run(["sh", "-c", "sleep 20 & echo $!"])
        #expect(.now - start < .seconds(10))
        let pid = try #require(Int32(result.text.dropLast()))
        kill(pid, SIGKILL)
    }
}
