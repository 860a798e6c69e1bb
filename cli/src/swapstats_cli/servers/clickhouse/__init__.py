"""A laptop's ClickHouse: the real engine (chDB, embedded) behind the HTTP interface, as far as clients use it.

One engine process may use a data directory at a time, so one server process owns it and everybody else speaks HTTP:
production code has one path. Start it with ``python -m swapstats_cli.servers.clickhouse --data-dir DIR --port P``.
"""
