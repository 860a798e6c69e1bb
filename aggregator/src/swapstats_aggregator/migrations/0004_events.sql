-- What counts is decided from every record of an event, so `swap_records` keeps them all, and `raw_swaps` has one row per
-- event whatever its records named (and one for its removals). Chains, hashes and addresses get the widths of all chains.
-- The tables from before stay as they were, under another name: drop them when nobody needs the way back. The views come
-- with counting.sql.
DROP VIEW IF EXISTS ${database}.swaps_daily_refresh;
DROP VIEW IF EXISTS ${database}.daily;
DROP VIEW IF EXISTS ${database}.swaps;

-- One row per event, and one per event with removals: the first that came. Read it with FINAL. Whether the event counts,
-- and with what, is in `swaps`.
CREATE TABLE IF NOT EXISTS ${database}.raw_swaps_from_0004
(
    event_date      Date,
    event_time      DateTime64(3, 'UTC'),
    ingested_time   DateTime64(3, 'UTC')   COMMENT 'When the broker took the record',
    chain_id        UInt64,
    tx_hash         String,
    log_index       UInt32,
    event_id        String,
    token           LowCardinality(String),
    token_address   String                 COMMENT 'Empty when unknown',
    token_symbol    LowCardinality(String) COMMENT 'Empty when unknown',
    pool_address    String                 COMMENT 'Empty when unknown',
    trader          String                 COMMENT 'Empty when unknown',
    side            LowCardinality(String),
    amount_token    Decimal(38, 18),
    amount_usd      Decimal(20, 6),
    block_number    Nullable(UInt64),
    block_hash      Nullable(String),
    revision        Nullable(UInt64),
    removed         UInt8,
    schema_version  UInt16,
    kafka_partition UInt32,
    kafka_offset    UInt64,
    first_wins      UInt64 MATERIALIZED 18446744073709551615 - kafka_offset,
    inclusion       String ALIAS coalesce(block_hash, toString(block_number), '')
)
ENGINE = ReplacingMergeTree(first_wins)
PARTITION BY toYYYYMM(event_date)
ORDER BY (chain_id, token, tx_hash, log_index, removed)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192${storage_policy_setting};

-- What traded per UTC day, one row for each computation of a day. The newest wins.
CREATE TABLE IF NOT EXISTS ${database}.swaps_daily_from_0004
(
    event_date      Date,
    chain_id        UInt64,
    token           LowCardinality(String),
    volume_usd      Decimal(38, 6),
    volume_token    Decimal(76, 18),
    trades          UInt64,
    buy_trades      UInt64,
    sell_trades     UInt64,
    late_trades     UInt64                 COMMENT 'Events that came too late to count',
    late_volume_usd Decimal(38, 6)         COMMENT 'What they would have added to volume_usd',
    computed_at     DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toYYYYMM(event_date)
ORDER BY (event_date, chain_id, token);

-- Old and new tables change places in one statement: another recorder, which still has to apply 0001 and 0003, never finds
-- their names free. The statement's two halves aren't one to a server that dies; then the next one does the second half.
RENAME TABLE ${database}.raw_swaps TO ${database}.raw_swaps_until_0004, ${database}.raw_swaps_from_0004 TO ${database}.raw_swaps;
RENAME TABLE ${database}.raw_swaps_from_0004 TO ${database}.raw_swaps;
RENAME TABLE ${database}.swaps_daily TO ${database}.swaps_daily_until_0004, ${database}.swaps_daily_from_0004 TO ${database}.swaps_daily;
RENAME TABLE ${database}.swaps_daily_from_0004 TO ${database}.swaps_daily;
-- Made again after another recorder had put the first ones into their places.
DROP TABLE IF EXISTS ${database}.raw_swaps_from_0004;
DROP TABLE IF EXISTS ${database}.swaps_daily_from_0004;

-- Every valid record of the topic, as it came. An insert that was tried again after a crash repeats keys, nothing else does.
CREATE TABLE IF NOT EXISTS ${database}.swap_records
(
    event_date      Date                   DEFAULT toDate(event_time),
    event_time      DateTime64(3, 'UTC'),
    ingested_time   DateTime64(3, 'UTC')   COMMENT 'When the broker took the record',
    stream_time     DateTime64(3, 'UTC')   COMMENT 'The highest event_time of its partition up to and with this record',
    late            UInt8                  COMMENT 'Whether it is late, if it is the first of its event',
    chain_id        UInt64,
    tx_hash         String,
    log_index       UInt32,
    event_id        String,
    token           LowCardinality(String),
    token_address   String                 COMMENT 'Empty when unknown',
    token_symbol    LowCardinality(String) COMMENT 'Empty when unknown',
    pool_address    String                 COMMENT 'Empty when unknown',
    trader          String                 COMMENT 'Empty when unknown',
    side            LowCardinality(String),
    amount_token    Decimal(38, 18),
    amount_usd      Decimal(20, 6),
    block_number    Nullable(UInt64),
    block_hash      Nullable(String),
    revision        Nullable(UInt64),
    removed         UInt8,
    schema_version  UInt16,
    incarnation     LowCardinality(String) COMMENT 'Which life of the topic the offset belongs to',
    kafka_partition UInt32,
    kafka_offset    UInt64,
    recorded_at     DateTime64(3, 'UTC')   DEFAULT now64(3, 'UTC') COMMENT 'When this row was inserted',
    INDEX by_stream_time stream_time TYPE minmax,
    INDEX by_recorded_at recorded_at TYPE minmax,
    INDEX by_tx_hash tx_hash TYPE bloom_filter
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(event_date)
ORDER BY (chain_id, token, event_time, tx_hash, log_index, incarnation, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192${storage_policy_setting};

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.raw_swaps_of_records TO ${database}.raw_swaps AS
SELECT
    event_date, event_time, ingested_time, chain_id, tx_hash, log_index, event_id, token, token_address, token_symbol,
    pool_address, trader, side, amount_token, amount_usd, block_number, block_hash, revision, removed, schema_version,
    kafka_partition, kafka_offset
FROM ${database}.swap_records;

-- An insert of the former release that began before the table was renamed ends in it, and its offsets are committed when it
-- is answered. Nobody waits longer than this for an answer; a row that comes later is read again.
SELECT sleepEachRow(${in_flight_seconds}) WHERE (SELECT count() FROM ${database}.raw_swaps_until_0004) > 0
SETTINGS function_sleep_max_microseconds_per_block = 3600000000;

-- Rows from before don't say what their partition had seen when they were read: they are taken as read in time.
INSERT INTO ${database}.swap_records
    (event_time, ingested_time, stream_time, late, chain_id, tx_hash, log_index, event_id, token, token_address,
     token_symbol, pool_address, trader, side, amount_token, amount_usd, block_number, block_hash, revision, removed,
     schema_version, incarnation, kafka_partition, kafka_offset, recorded_at)
SELECT
    event_time, ingested_time, event_time, 0, chain_id, toStringCutToZero(tx_hash), log_index, event_id, token,
    toStringCutToZero(token_address), token_symbol, toStringCutToZero(pool_address), trader, side, amount_token,
    amount_usd, if(included_by = 'number' OR block_number != 0, block_number, NULL),
    if(included_by = 'hash', block_hash, NULL), NULL, removed, schema_version, '', kafka_partition, kafka_offset,
    ingested_time
FROM ${database}.raw_swaps_until_0004
SETTINGS throw_on_max_partitions_per_insert_block = 0;

INSERT INTO ${database}.swaps_daily
SELECT event_date, chain_id, token, volume_usd, volume_token, trades, buy_trades, sell_trades, 0, 0, computed_at
FROM ${database}.swaps_daily_until_0004;
