// iperf3 between two namespaces: the yardstick of what a link carries.
import FoundationEssentials
import Glibc
import LinuxKernel

struct Iperf: Decodable {
    private struct End: Decodable { var sum_received: Sum?; var sum: Sum? }
    private struct Sum: Decodable { var bits_per_second: Double; var lost_percent: Double? }
    private var end: End

    /// As received.
    var bitsPerSecond: Double { end.sum_received?.bits_per_second ?? end.sum?.bits_per_second ?? 0 }
    /// Of datagrams.
    var lostPercent: Double? { end.sum?.lost_percent }

    /// One stream for 3 s: of TCP, after a second that is not counted, or what the options say. (iperf3 counts
    /// datagrams lost in such a second but not those sent in it.)
    static func run(
        from source: NamedNetwork, to destination: NamedNetwork, _ address: String,
        _ options: [String] = ["--omit", "1"]
    ) throws -> Iperf {
        let server = try ChildProcess(
            "iperf3", ["--server", "--one-off", "--bind", address], namespace: destination, diesWithParent: true)
        defer { server.stop(grace: 1) }
        var last: any Error = TestbedError("iperf3 did not start")
        for _ in 0..<20 {
            usleep(100_000)
            do {
                let output = try runProgram(
                    "iperf3", ["--client", address, "--time", "3", "--json"] + options,
                    namespace: source)
                return try JSONDecoder().decode(Iperf.self, from: Data(output.utf8))
            } catch { last = error }
        }
        throw TestbedError("iperf3 from \(source.name) to \(destination.name): \(last)")
    }
}
