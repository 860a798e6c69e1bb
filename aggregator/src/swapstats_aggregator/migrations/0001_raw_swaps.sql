-- Every valid record of the topic, as it came. A repeat of one (a duplicate, or an insert that was tried again after a
-- crash) has the same sorting key, and of rows with the same key the one with the lowest offset stays: first wins, as
-- in the engine. Read it with FINAL; the view `swaps` reads it by identity alone.
CREATE TABLE IF NOT EXISTS ${database}.raw_swaps
(
    event_date      Date                   DEFAULT toDate(event_time),
    event_time      DateTime64(3, 'UTC'),
    ingested_time   DateTime64(3, 'UTC')   DEFAULT now64(3, 'UTC') COMMENT 'When the broker took the record',
    chain_id        UInt32,
    tx_hash         FixedString(66),
    log_index       UInt32,
    event_id        String,
    token           LowCardinality(String),
    token_address   FixedString(42)        COMMENT 'Empty when unknown',
    token_symbol    LowCardinality(String) COMMENT 'Empty when unknown',
    pool_address    FixedString(42)        COMMENT 'Empty when unknown',
    trader          String                 COMMENT 'Empty when unknown',
    side            LowCardinality(String),
    amount_token    Decimal(38, 18),
    amount_usd      Decimal(20, 6),
    block_number    UInt64                 COMMENT '0 when unknown',
    block_hash      String                 COMMENT 'Empty when unknown',
    included_by     Enum8('nothing' = 0, 'number' = 1, 'hash' = 2) COMMENT 'What names the block of the inclusion',
    removed         UInt8,
    schema_version  UInt16,
    kafka_partition UInt32,
    kafka_offset    UInt64,
    first_wins      UInt64 MATERIALIZED 18446744073709551615 - kafka_offset,
    inclusion       String ALIAS multiIf(included_by = 'hash', block_hash, included_by = 'number', toString(block_number), '')
)
ENGINE = ReplacingMergeTree(first_wins)
PARTITION BY toYYYYMM(event_date)
ORDER BY (chain_id, token_address, event_time, tx_hash, log_index, token, included_by, block_hash,
          if(included_by = 'hash', 0, block_number), removed)
SETTINGS non_replicated_deduplication_window = 1000, index_granularity = 8192${storage_policy_setting};
