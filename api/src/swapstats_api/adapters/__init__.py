"""Adapters of `swapstats_api.ports`; imported only where a process or a test is composed."""
