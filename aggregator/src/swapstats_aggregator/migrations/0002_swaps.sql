-- One row per identity (event, inclusion, token, removed or not): the first that came. A repeat that differs from the
-- first in its time or its token's address is a row of its own in raw_swaps, but not here.
CREATE VIEW IF NOT EXISTS ${database}.swaps AS
SELECT
    event_date, event_time, ingested_time, chain_id, tx_hash, log_index, event_id, token, token_address, token_symbol,
    pool_address, trader, side, amount_token, amount_usd, block_number, block_hash, inclusion, removed, schema_version,
    kafka_partition, kafka_offset
FROM ${database}.raw_swaps
ORDER BY kafka_offset
LIMIT 1 BY chain_id, tx_hash, log_index, inclusion, token, removed;
