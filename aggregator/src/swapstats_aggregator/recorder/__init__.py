"""The recorder: reads the topic as an ordinary consumer group and keeps every valid record in ClickHouse.

It is the second entry point of this package, its own process: ClickHouse down for an hour stops it and nothing else.
Order of a batch: read, insert, commit the offsets. A crash in between repeats the insert, which the table undoes
(see ``migrations/0001_raw_swaps.sql``); nothing here needs to remember what was written.
"""
