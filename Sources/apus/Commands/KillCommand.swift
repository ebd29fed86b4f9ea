import Agent
import ArgumentParser
import Glibc

struct KillCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kill", abstract: "Send a signal to a container's first process.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Option(name: .shortAndLong, help: "A signal's name or number.")
    var signal = "TERM"

    private static let names: [String: Int32] = [
        "HUP": SIGHUP, "INT": SIGINT, "QUIT": SIGQUIT, "ABRT": SIGABRT, "KILL": SIGKILL, "USR1": SIGUSR1,
        "USR2": SIGUSR2,
        "PIPE": SIGPIPE, "ALRM": SIGALRM, "TERM": SIGTERM, "CHLD": SIGCHLD, "CONT": SIGCONT, "STOP": SIGSTOP,
        "TSTP": SIGTSTP, "WINCH": SIGWINCH,
    ]

    static func number(of signal: String) -> Int32? {
        if let number = Int32(signal) { return (1...64).contains(number) ? number : nil }
        let name = signal.uppercased()
        return names[name.hasPrefix("SIG") ? String(name.dropFirst(3)) : name]
    }

    func validate() throws {
        if Self.number(of: signal) == nil { throw ValidationError("no signal: \(signal)") }
    }

    func run() async throws {
        try await host.client().kill(name, signal: Self.number(of: signal)!)
        if output.json { print(Apus.done) }
    }
}
