-- Hashes and addresses of any chain (128 and 256 characters), chain ids of 63 bits, and the revision that a producer
-- states. A sorting key's columns can't be altered, so the rows move into a new table of the same name. The old one is
-- kept as `raw_swaps_narrow` and empties by its own age; who needs its disk drops it.
RENAME TABLE ${database}.raw_swaps TO ${database}.raw_swaps_narrow;

CREATE TABLE IF NOT EXISTS ${database}.raw_swaps
(
    event_date      Date                   DEFAULT toDate(event_time),
    event_time      DateTime64(3, 'UTC'),
    ingested_time   DateTime64(3, 'UTC')   DEFAULT now64(3, 'UTC') COMMENT 'When the broker took the record',
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
    block_number    UInt64                 COMMENT '0 when unknown',
    block_hash      String                 COMMENT 'Empty when unknown',
    included_by     Enum8('nothing' = 0, 'number' = 1, 'hash' = 2) COMMENT 'What names the block of the inclusion',
    removed         UInt8,
    revision        Int64                  DEFAULT -1 COMMENT '-1 when not stated',
    schema_version  UInt16,
    kafka_partition UInt32,
    kafka_offset    UInt64,
    first_wins      UInt64 MATERIALIZED 18446744073709551615 - kafka_offset,
    inclusion       String ALIAS multiIf(included_by = 'hash', block_hash, included_by = 'number', toString(block_number), '')
)
ENGINE = ReplacingMergeTree(first_wins)
PARTITION BY toYYYYMM(event_date)
ORDER BY (chain_id, token_address, event_time, tx_hash, log_index, token, included_by, block_hash,
          if(included_by = 'hash', 0, block_number), removed, revision)
TTL ${move_to_cold}toDateTime(event_time) + toIntervalSecond(${delete_after_seconds}) DELETE
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192${storage_policy_setting};

-- An insert that began before the renaming goes on into the old table: it is ended, and its recorder repeats it.
KILL QUERY WHERE query_kind = 'Insert' AND query ILIKE 'INSERT INTO ${database}.raw_swaps%' AND query NOT LIKE '%narrow%' SYNC;

-- Done twice, it makes rows that are equal, and of equal ones one stays.
INSERT INTO ${database}.raw_swaps
    (event_date, event_time, ingested_time, chain_id, tx_hash, log_index, event_id, token, token_address, token_symbol,
     pool_address, trader, side, amount_token, amount_usd, block_number, block_hash, included_by, removed,
     schema_version, kafka_partition, kafka_offset)
SELECT
    event_date, event_time, ingested_time, chain_id, toStringCutToZero(tx_hash), log_index, event_id, token,
    toStringCutToZero(token_address), token_symbol, toStringCutToZero(pool_address), trader, side, amount_token,
    amount_usd, block_number, block_hash, included_by, removed, schema_version, kafka_partition, kafka_offset
FROM ${database}.raw_swaps_narrow
SETTINGS throw_on_max_partitions_per_insert_block = 0;

CREATE OR REPLACE VIEW ${database}.swaps AS
SELECT
    event_date, event_time, ingested_time, chain_id, tx_hash, log_index, event_id, token, token_address, token_symbol,
    pool_address, trader, side, amount_token, amount_usd, block_number, block_hash, inclusion, removed, revision,
    schema_version, kafka_partition, kafka_offset
FROM ${database}.raw_swaps
ORDER BY kafka_offset
LIMIT 1 BY chain_id, tx_hash, log_index, inclusion, token, removed;

-- The days, likewise.
DROP VIEW IF EXISTS ${database}.swaps_daily_refresh;

RENAME TABLE ${database}.swaps_daily TO ${database}.swaps_daily_narrow;

CREATE TABLE IF NOT EXISTS ${database}.swaps_daily
(
    event_date   Date,
    chain_id     UInt64,
    token        LowCardinality(String),
    volume_usd   Decimal(38, 6),
    volume_token Decimal(76, 18),
    trades       UInt64,
    buy_trades   UInt64,
    sell_trades  UInt64,
    computed_at  DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toYYYYMM(event_date)
ORDER BY (event_date, chain_id, token);

INSERT INTO ${database}.swaps_daily
SELECT * FROM ${database}.swaps_daily_narrow
SETTINGS throw_on_max_partitions_per_insert_block = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.swaps_daily_refresh
REFRESH EVERY 1 MINUTE APPEND TO ${database}.swaps_daily AS
SELECT
    event_date,
    chain_id,
    token,
    sumIf(usd, counts) AS volume_usd,
    sumIf(toDecimal256(amount, 18), counts) AS volume_token,
    countIf(counts) AS trades,
    countIf(counts AND is_buy) AS buy_trades,
    countIf(counts AND NOT is_buy) AS sell_trades,
    now64(3, 'UTC') AS computed_at
FROM
(
    SELECT
        chain_id,
        token,
        argMin(event_date, (removed, kafka_offset)) AS event_date,
        argMin(amount_usd, (removed, kafka_offset)) AS usd,
        argMin(amount_token, (removed, kafka_offset)) AS amount,
        argMin(side, (removed, kafka_offset)) = 'buy' AS is_buy,
        max(removed) = 0 AS counts
    FROM ${database}.raw_swaps AS raw
    WHERE raw.event_date >= toDate(now('UTC')) - 2
    GROUP BY chain_id, tx_hash, log_index, inclusion, token
)
GROUP BY event_date, chain_id, token
SETTINGS max_bytes_before_external_group_by = 2000000000;

CREATE OR REPLACE VIEW ${database}.daily AS
SELECT event_date, chain_id, token, volume_usd, volume_token, trades, buy_trades, sell_trades
FROM ${database}.swaps_daily FINAL
WHERE trades > 0;
