"""The pure core of SwapStats: no I/O, no clock, no randomness, no client library.

Time, ids and randomness are arguments. What a shell (aggregator, API, operator, CLI)
must do is returned to it, never done here.
"""
