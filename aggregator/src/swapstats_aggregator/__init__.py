"""The aggregator: shards that own partitions, and the recorder that writes ClickHouse."""
