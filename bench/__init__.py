"""Measurements of the speed, memory and latency that SwapStats promises: ``python -m bench``."""
