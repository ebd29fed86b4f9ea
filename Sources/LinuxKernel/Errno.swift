// The kernel's error numbers as a typed value, and the error every failed kernel call becomes.
import Glibc

/// An error number of the kernel (errno(3)).
public struct Errno: Error, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32
    public init(_ rawValue: Int32) { self.rawValue = rawValue }

    /// The C library's words for it, in lower case.
    public var description: String {
        var buffer = [CChar](repeating: 0, count: 128)
        strerror_r(rawValue, &buffer, buffer.count)
        return buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }.lowercased()
    }

    public static let notPermitted = Errno(EPERM)
    public static let noEntry = Errno(ENOENT)
    public static let noProcess = Errno(ESRCH)
    public static let interrupted = Errno(EINTR)
    public static let again = Errno(EAGAIN)
    public static let exists = Errno(EEXIST)
    public static let busy = Errno(EBUSY)
    public static let invalid = Errno(EINVAL)
    public static let noSpace = Errno(ENOSPC)
    public static let timedOut = Errno(ETIMEDOUT)
    public static let notConnected = Errno(ENOTCONN)
}

/// A kernel call that failed: what was attempted, on what, and what the kernel said.
public struct KernelError: Error, Sendable, CustomStringConvertible {
    /// What was attempted, with its target: "restoring fd 7 of pid 12 (inotify)".
    public let operation: String
    public let errno: Errno

    public init(_ operation: String, _ errno: Errno) {
        self.operation = operation
        self.errno = errno
    }
    public var description: String { "\(operation): \(errno)" }
}

/// Turns "value or -errno", which every function of CLinux returns, into a value or a thrown `KernelError`.
///
/// The operation's text is only built when the call failed.
@discardableResult @inline(__always)
public func check<T: FixedWidthInteger>(_ result: T, _ operation: @autoclosure () -> String) throws(KernelError) -> T {
    if result < 0 { throw KernelError(operation(), Errno(Int32(truncatingIfNeeded: 0 - result))) }
    return result
}

/// The same for functions of the C library, which return -1 and leave the number in errno.
@discardableResult @inline(__always)
public func checkC<T: FixedWidthInteger>(_ result: T, _ operation: @autoclosure () -> String) throws(KernelError) -> T {
    if result == -1 {
        let number = Glibc.errno
        throw KernelError(operation(), Errno(number))
    }
    return result
}
