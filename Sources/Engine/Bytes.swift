// protobuf's byte strings are Foundation's Data; the engine calls them by what they are.
import Foundation

typealias Bytes = Data
