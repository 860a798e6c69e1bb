"""HTTP and WebSocket in front of the shards: reads are served from followed tokens in RAM."""
