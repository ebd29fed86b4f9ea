// The container that a source's sessions move: a stub in a cgroup of its own, with a log and a small root file system.
import CFuzzer
import Foundation
import Glibc
import LinuxKernel

@testable import Containers
@testable import Engine
@testable import Migration

final class FuzzContainer {
    static let name = "web"
    private let host: SessionHost
    private let directory: ContainerDirectory
    /// Its cgroup.
    private let folder: String, cgroup: FileDescriptor
    private(set) var pid: Int32 = 0
    private(set) var made = 0
    /// How it stood before the session.
    private var condition = ""

    init(_ host: SessionHost) throws {
        self.host = host
        directory = try host.layout.container(Self.name)
        try Stub.install(at: ContainerConfig.stubPath)
        folder = "/sys/fs/cgroup\(host.layout.cgroup(of: Self.name))"
        // A merge goes on in a program of its own where one has failed.
        if access(folder, F_OK) == 0 { try Cgroup.killProcesses(in: host.layout.cgroup(of: Self.name)) }
        try directory.remove()
        try Folder.create(folder)
        cgroup = try FileDescriptor(opening: folder, O_RDONLY | O_DIRECTORY)
    }

    /// It as it runs, made anew if the last session has ended it.
    func running() throws -> RunningContainer {
        if pid == 0 { try make() }
        return RunningContainer(name: Self.name, pid: pid, rootfs: directory.rootfs, network: nil)
    }

    private func make() throws {
        try directory.create()
        let config = try ContainerConfig(json: Seeds.config)
        try directory.write(config: config, prepared: config)
        try ContainerDirectory.replace("\(directory.rootfs)/p", with: Array("hello".utf8))
        let log = try FileDescriptor(opening: directory.log, O_WRONLY | O_CREAT | O_APPEND)
        pid = try checkC(fuzz_spawn(ContainerConfig.stubPath, log.number, cgroup.number, 0), "starting a stub")
        made += 1
        try RunState.note(pid: pid, cgroup: host.layout.cgroup(of: Self.name), inBundle: directory.bundle)
        // Until it waits, in pause(2).
        while !(try SmallFile.text("/proc/\(pid)/syscall")).hasPrefix("34 ") { usleep(100) }
        condition = current()
    }

    /// What is not as it was before the session, though this copy lives; empty: nothing.
    func changes() -> String {
        // It may still be on its way back into its call.
        for _ in 0..<2000 {
            if current() == condition { return "" }
            usleep(1000)
        }
        return "it was\n\(condition)and is\n\(current())"
    }

    /// Everything about it that a session touches: where its thread stands, memory, descriptors, signals, tracer,
    /// freezer.
    private func current() -> String {
        func text(_ path: String) -> String { (try? SmallFile.text(path)) ?? "no \(path)" }
        let process = "/proc/\(pid)"
        // The rest of the status counts what it has used.
        let kept = ["State", "TracerPid", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"].map { $0 + ":" }
        let status = text("\(process)/status").split(separator: "\n").filter { kept.contains(where: $0.hasPrefix) }
        let descriptors = ((try? ProcessFiles.descriptors(of: pid)) ?? []).map {
            "fd \($0) \((try? ProcessFiles.link("\(process)/fd/\($0)")) ?? "")"
        }
        var tail: [UInt8]?
        if let reader = try? MemoryMapReader(pid: pid), (try? reader.refresh()) != nil,
            let end = reader.entries.first(where: { $0.name == "[vdso]" })?.range.upperBound
        {
            tail = try? ProcessMemory(pid: pid).peek(64, at: end - 64)
        }
        let lines =
            status.map(String.init) + descriptors + [
                text("\(process)/maps"), text("\(process)/syscall"), "end of the vDSO: \(tail ?? [])",
                text("\(folder)/cgroup.events"),
            ]
        return lines.joined(separator: "\n")
    }

    /// Nothing of it may be left. Collects it.
    func remains() -> String {
        var left = ""
        if !isZombie(pid) { left += "its process is there; " }
        if directory.exists { left += "its folder is there; " }
        end()
        return left
    }

    func end() {
        if pid == 0 { return }
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
        pid = 0
    }
}
