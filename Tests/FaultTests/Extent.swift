// How much of the fault tests runs.
import Foundation

/// Everything at every point by every technique (`make faults`), or what differs, which each test run can afford.
let isComplete = ProcessInfo.processInfo.environment["APUS_FAULTS"] == "all"
