"""Stands in for a shard in the supervisor's tests: found first on PYTHONPATH."""
