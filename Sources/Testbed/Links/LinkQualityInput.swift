// A link's quality as it stands in a YAML file: {rate: 100mbit, delay: 5, jitter: 1, loss: 0.1, reorder: 0, queue: 65536}.

extension LinkQuality {
    static let keys = ["rate", "delay", "jitter", "loss", "reorder", "queue"]

    /// Takes over what stands among a mapping's entries; whatever else there is is left to the caller.
    mutating func read(_ entries: [(key: String, value: YAMLValue)]) throws {
        for (key, value) in entries {
            switch key {
            case "rate": rate = try value.choice(["a rate such as 100mbit or 1gbit", "unlimited"]) { LinkRate($0) }
            case "delay": delay = try value.number(0...10_000, "milliseconds")
            case "jitter": jitter = try value.number(0...10_000, "milliseconds")
            case "loss": loss = try value.number(0...100, "percent")
            case "reorder": reorder = try value.number(0...100, "percent")
            case "queue": queue = UInt64(try value.integer(1500...1 << 30, "bytes"))
            default: break
            }
        }
        if jitter > delay, let value = entries.last(where: { $0.key == "jitter" || $0.key == "delay" })?.value {
            throw value.mistake("a jitter of \(plain(jitter)) ms is more than the delay of \(plain(delay)) ms")
        }
    }
}
