"""The decider's ports to the world, fulfilled by Redis and NATS; and the broker's topics."""
