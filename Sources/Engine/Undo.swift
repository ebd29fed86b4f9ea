// Putting right what an engine left in a live process when it died: the undo list, played by whoever comes after it.
//
// Every function may be called any number of times, by several processes one after another.
import CLinux
import Glibc
import LinuxKernel

extension MapEntry {
    /// Is it such a mapping as the injection area is?
    var resemblesInjectionArea: Bool {
        shared && readable && writable && executable && UInt64(range.count) == InjectionArea.size
            && name.hasPrefix("/dev/zero")
    }
}

extension SourceProcess {
    /// Removes what was injected. The process runs, or is frozen by nobody.
    ///
    /// - Parameters:
    ///   - steps: those that were not taken back, newest first.
    ///   - undo: where to note what is done on the way, should this process die too.
    public static func removeInjections(pid: Int32, _ steps: [UndoStep], undo: any UndoLog) throws {
        var patch: (address: UInt64, length: Int)?
        var areas: [UInt64] = [], unplaced: [UInt64]?
        for step in steps {
            switch step {
            case .vdsoPatch(_, let address, let length): patch = (address, length)
            case .injectionArea(_, let address, _): areas.append(address)
            case .mapping(_, _, let existing): unplaced = existing
            case .bootstrap, .userfaultfd, .cgroupFreeze, .socketRepair: break
            }
        }
        // The patch is noted before everything else and taken back after it.
        guard let patch else { return }
        let process = try SourceProcess(pid: pid, undo: undo)
        for case .bootstrap(_, let tid, let registers, let mask) in steps {
            try process.leaveBootstrap(tid, patch.address..<patch.address + UInt64(patch.length), registers, mask)
            try undo.done(.bootstrap(pid: pid, tid: tid, registers: registers, mask: mask))
        }

        let reader = try MemoryMapReader(pid: pid)
        _ = try reader.refresh()
        let mapped = reader.entries.filter(\.resemblesInjectionArea).map(\.range.lowerBound)
        let address =
            areas.first(where: mapped.contains)
            ?? unplaced.flatMap { existing in mapped.first { !existing.contains($0) } }
        guard let address else {
            // A program that was executed since has another vDSO, or something else at this place.
            let code = machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_END)
            if code.count == patch.length, (try? process.memory.peek(patch.length, at: patch.address)) == code {
                try process.memory.poke([UInt8](repeating: 0, count: patch.length), at: patch.address)
            }
            return try undo.done(.vdsoPatch(pid: pid, address: patch.address, length: patch.length))
        }
        try process.memory.poke(machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_END), at: patch.address)
        process.area = try InjectionArea(of: pid, at: address)
        process.patch = patch
        try process.stopOutsideTheArea()
        do {
            if steps.contains(.userfaultfd(pid: pid)) { try process.closeUserfaultfds() }
            try process.closeArea()
        } catch {
            try? process.letGo()
            throw error
        }
        try process.letGo()
    }

    /// Puts a thread back that waits in the code at the end of the vDSO.
    private func leaveBootstrap(_ tid: Int32, _ code: AddressRange, _ saved: [UInt8], _ mask: UInt64) throws {
        guard saved.count == MemoryLayout<user_regs_struct>.size else { return }
        try stop(onlyLeader: tid == pid)
        if let index = threads.firstIndex(where: { $0.tracee.tid == tid }), code.contains(threads[index].registers.rip)
        {
            threads[index].mask = mask
            threads[index].registers = saved.withUnsafeBytes { $0.loadUnaligned(as: user_regs_struct.self) }
        }
        try letGo()
    }

    /// Stops all threads where none of them is inside the injection area: one that is goes on from system call to
    /// system call, its tracer beside it, until rt_sigreturn has put it back to where the program was.
    private func stopOutsideTheArea() throws {
        let area = self.area!.range
        try stop()
        do {
            for index in threads.indices where area.contains(threads[index].registers.rip) {
                let tracee = threads[index].tracee
                var registers = threads[index].registers
                while area.contains(registers.rip) {
                    // It would linger in ppoll for up to a second.
                    if registers.orig_rax == Self.ppoll {
                        registers.rax = UInt64(bitPattern: Int64(-EINTR))
                        registers.orig_rax = UInt64.max
                        try tracee.setRegisters(registers)
                    }
                    try goToSystemCall(tracee, "leaving the injection area")
                    registers = try tracee.registers()
                }
                try tracee.interrupt()
                try tracee.resume()
                guard try awaitStop(tracee) else { continue }
                threads[index].registers = try tracee.registers()
                threads[index].mask = try tracee.signalMask()
                threads[index].extendedState = try tracee.extendedState()
            }
        } catch {
            try? letGo()
            throw error
        }
    }
    private static let ppoll: UInt64 = 271

    /// Closes userfaultfds of the process: one of its own would have refused its migration.
    func closeUserfaultfds() throws {
        for number in try ProcessFiles.descriptors(of: pid) {
            guard (try? ProcessFiles.link("/proc/\(pid)/fd/\(number)")) == "anon_inode:[userfaultfd]" else { continue }
            var batch = CallBatch()
            batch.call(.close, .int(number), doing: "closing a userfaultfd")
            _ = try run([batch])
        }
    }
}

extension TCPSocket {
    /// Numbers of the TCP sockets of a process that have SO_REUSEADDR, which repair mode overwrites.
    public static func reusingAddress(pid: Int32) throws -> [Int32] {
        try sockets(of: pid, protocol: Int32(IPPROTO_TCP)).filter {
            (try? get($0.copy.number, SOL_SOCKET, SO_REUSEADDR)) ?? 0 != 0
        }.map(\.number)
    }

    /// Takes every connection of a stopped process out of repair mode.
    ///
    /// - Parameter reusing: those that had SO_REUSEADDR; one that is younger than the list has it if its listener has.
    public static func endRepairs(pid: Int32, reusing: [Int32]) throws {
        let all = try sockets(of: pid, protocol: Int32(IPPROTO_TCP))
        let repaired = all.filter { (try? get($0.copy.number, Int32(IPPROTO_TCP), TCP_REPAIR)) ?? 0 == 1 }
        if repaired.isEmpty { return }
        let listening = try all.filter { try get($0.copy.number, SOL_SOCKET, SO_ACCEPTCONN) == 1 }
        let ports = try listening.filter { try get($0.copy.number, SOL_SOCKET, SO_REUSEADDR) != 0 }.map {
            try port($0.copy.number)
        }
        for socket in repaired {
            let reuse = try reusing.contains(socket.number) || ports.contains(port(socket.copy.number))
            try endRepair(socket.copy.number, Repair(reuseAddress: reuse, unsent: 0, sent: 0))
        }
    }

    /// sin_port and sin6_port stand at the same place.
    private static func port(_ fd: Int32) throws -> [UInt8] {
        Array(try address(fd, peer: false).dropFirst(2).prefix(2))
    }
}

extension InetSocket {
    /// The sockets of a process that are of a protocol.
    static func sockets(of pid: Int32, protocol number: Int32) throws -> [(number: Int32, copy: FileDescriptor)] {
        let pidfd = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening pid \(pid)"))
        return try ProcessFiles.descriptors(of: pid).compactMap { fd in
            guard let link = try? ProcessFiles.link("/proc/\(pid)/fd/\(fd)"), link.hasPrefix("socket:") else {
                return nil
            }
            let taken = clx_pidfd_getfd(pidfd.number, fd)
            // A running process may have closed it since it was listed.
            if taken == -EBADF { return nil }
            let copy = FileDescriptor(owning: try check(taken, "taking fd \(fd) of pid \(pid)"))
            guard (try? get(copy.number, SOL_SOCKET, SO_PROTOCOL)) == number else { return nil }
            return (fd, copy)
        }
    }
}
