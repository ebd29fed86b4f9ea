// The fault tests kill agents and guards at every point of a migration, which takes minutes: `make faults` asks for them.
import Foundation

let faultTestsWanted = ProcessInfo.processInfo.environment["APUS_FAULTS"] != nil
