// Asks a network whether somebody has an address, before a container takes it (RFC 5227, RFC 4862).
import LinuxKernel

/// Questions for a container's addresses, from its own interface.
struct AddressProbe {
    private let addresses: [IPAddress]
    private let mac: MACAddress
    private let socket: PacketSocket

    init(_ addresses: [IPAddress], by mac: MACAddress, on interface: Int32, in namespace: NetworkNamespace)
        throws(KernelError)
    {
        (self.addresses, self.mac) = (addresses, mac)
        socket = try PacketSocket(receivingOn: interface, in: namespace)
    }

    /// Asks three times in a fifth of a second: far longer than an answer takes on an emulated link, far shorter than
    /// the standards wait, which must allow for anything.
    ///
    /// - Returns: an address that somebody has, and who; nil: nobody said so.
    func run() throws(KernelError) -> (IPAddress, MACAddress)? {
        for _ in 0..<3 {
            for address in addresses { try socket.send(Frame.probe(address, by: mac)) }
            let end = monotonicNow() + 67_000_000
            while true {
                let left = end - monotonicNow()
                guard left > 0 else { break }
                guard let frame = try socket.receive(milliseconds: Int32(left / 1_000_000) + 1) else { continue }
                for address in addresses {
                    if let owner = Frame.claimant(of: address, in: frame), owner != mac { return (address, owner) }
                }
            }
        }
        return nil
    }
}
