// swift-tools-version: 6.2
import PackageDescription

// Arrows point only downwards: a target never depends on one that stands above it in this list.
// docs/architecture.md says what each one holds.
let package = Package(
    name: "apus",
    products: [
        .executable(name: "apus", targets: ["apus"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        .executableTarget(
            name: "apus",
            dependencies: [
                "Agent", "Containers", "Engine", "Evaluation", "LinuxKernel", "Migration", "Testbed",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ]),
        .target(
            name: "Evaluation",
            dependencies: [
                "Testbed", "Agent", "Migration", "Containers", "LinuxKernel",
                .product(name: "GRDB", package: "GRDB.swift"),
            ]),
        .target(
            name: "Testbed",
            dependencies: [
                "Agent", "Migration", "Memory", "Containers", "LinuxKernel", "CLinux",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "Yams", package: "Yams"),
            ]),
        .target(
            name: "Agent",
            dependencies: [
                "Migration", "Engine", "Containers", "LinuxKernel", "CLinux",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]),
        .target(
            name: "Migration",
            dependencies: [
                "Engine", "Memory", "Containers", "LinuxKernel", "CLinux",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ]),
        .target(name: "Containers", dependencies: ["LinuxKernel", "CLinux", "COpenSSL"]),
        .target(
            name: "Engine",
            dependencies: [
                "Memory", "LinuxKernel", "CLinux",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ]),
        .target(name: "Memory", dependencies: ["LinuxKernel", "CLinux"]),
        .target(name: "LinuxKernel", dependencies: ["CLinux"]),
        .target(name: "CLinux"),
        // SHA-256 from libcrypto: building a Swift implementation takes longer than all of Apus.
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .testTarget(name: "LinuxKernelTests", dependencies: ["LinuxKernel"]),
        .testTarget(
            name: "AgentTests",
            dependencies: [
                "Agent", "Containers", "Engine", "LinuxKernel", "Migration", "Testbed", "apus",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ]),
        .testTarget(
            name: "EvaluationTests",
            dependencies: [
                "Evaluation", "Testbed", "Migration", "Containers", "LinuxKernel",
                .product(name: "GRDB", package: "GRDB.swift"),
            ]),
        .testTarget(
            name: "TestbedTests",
            dependencies: [
                "Agent", "Containers", "Testbed", "Migration", "LinuxKernel", "CLinux", "NetworkTestSupport",
            ]),
        .target(
            name: "NetworkTestSupport", dependencies: ["CLinux", "Containers", "LinuxKernel"],
            path: "Tests/NetworkTestSupport"),
        .testTarget(
            name: "ContainersTests", dependencies: ["Containers", "LinuxKernel", "CLinux", "NetworkTestSupport"]),
        .testTarget(name: "MemoryTests", dependencies: ["Memory", "LinuxKernel", "CLinux"]),
        .testTarget(
            name: "MigrationTests",
            dependencies: [
                "Migration", "Engine", "Containers", "LinuxKernel", "CLinux",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ]),
        .testTarget(
            name: "FaultTests",
            dependencies: ["apus", "Agent", "Testbed", "Migration", "Containers", "LinuxKernel", "CLinux"]),
        .testTarget(
            name: "EngineTests",
            dependencies: [
                "Engine", "Containers", "LinuxKernel", "NetworkTestSupport",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ]),
    ],
    swiftLanguageModes: [.v6]
)

// `make fuzz` alone: everything below is compiled anew for it, with coverage for libFuzzer (docs/protocol.md).
if Context.environment["APUS_FUZZ"] != nil {
    package.products.append(.executable(name: "fuzz", targets: ["fuzz"]))
    package.targets += [
        .systemLibrary(name: "CFuzzer", path: "Fuzz/CFuzzer"),
        .executableTarget(
            name: "fuzz",
            dependencies: [
                "CFuzzer", "Migration", "Engine", "Memory", "Containers", "LinuxKernel", "CLinux",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ], path: "Fuzz/Sources"),
    ]
}

for target in package.targets where target.type != .system {
    target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)]
}
