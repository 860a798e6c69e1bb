"""The recorder: reads the topic as an ordinary consumer group and keeps every valid record in ClickHouse.

It is the second entry point of this package, its own process: ClickHouse down for an hour stops it and nothing else.
Order of a batch: read, insert, commit the offsets. A crash in between repeats the insert, which the tables undo
(see ``migrations/0004_events.sql``). Nothing is remembered here: how far a partition had got is asked of ClickHouse,
and what counts is decided there, in ``migrations/fate.sql`` (docs/adr/0017).
"""
