"""Stands in for a shard in the supervisor's tests: found first on PYTHONPATH."""

from swapstats_aggregator.standin_shard import serve  # type: ignore[import-not-found]  # this folder's, not the real one's

serve()
