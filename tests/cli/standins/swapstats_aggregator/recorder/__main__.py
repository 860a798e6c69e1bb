from swapstats_aggregator.standin import serve  # type: ignore[import-not-found]  # this folder's, not the real one's

serve()
