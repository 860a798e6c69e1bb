"""`swapstats verify`: what is served, held against what the topic says.

`compare` and `rows` are pure: records and replies in, findings out. `api`, `topic` and `clickhouse` do the I/O, `run`
brings them together, `render` shows the report.
"""
