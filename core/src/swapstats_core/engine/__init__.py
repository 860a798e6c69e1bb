"""A partition's state, what counts in it, its snapshots, and the oracle to hold it against (``docs/engine.md``)."""
