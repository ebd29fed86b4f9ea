// Standard error and the end of the program. (Command types have an `exit` of their own.)
@preconcurrency import Glibc

enum Terminal {
    /// Writes to standard error as it is.
    static func say(_ text: String) {
        fputs(text, stderr)
        fflush(stderr)
    }

    static func end(_ status: Int32) -> Never {
        fflush(nil)
        Glibc.exit(status)
    }
}
