-- What counts, by the rules of docs/engine.md. Applied again whenever the resource asks for other rules (windows, grace,
-- dedupe.ttl and source.reorgHorizon decide), and whenever one of its views is missing: they bear the rules' checksum, so a
-- recorder that died, or another one that replaced them, is noticed at the next start. This file has no version.

-- One row per event: the record that counts, or if none does, the first late one, or the first.
CREATE OR REPLACE VIEW ${database}.swaps AS
SELECT
    details.event_date AS event_date, details.event_time AS event_time, details.ingested_time AS ingested_time,
    chain_id, tx_hash, log_index, details.event_id AS event_id, token, details.token_address AS token_address,
    details.token_symbol AS token_symbol, details.pool_address AS pool_address, details.trader AS trader,
    side, amount_token, amount_usd, details.block_number AS block_number, details.block_hash AS block_hash,
    coalesce(block_hash, toString(block_number), '') AS inclusion, details.revision AS revision,
    details.removed AS removed, details.schema_version AS schema_version,
    details.kafka_partition AS kafka_partition, details.kafka_offset AS kafka_offset, counts, late
FROM (${all_decided})
WHERE stands
COMMENT '${checksum}';

CREATE OR REPLACE VIEW ${database}.daily AS
SELECT event_date, chain_id, token, volume_usd, volume_token, trades, buy_trades, sell_trades, late_trades, late_volume_usd
FROM ${database}.swaps_daily FINAL
WHERE trades > 0 OR late_trades > 0
COMMENT '${checksum}';

DROP VIEW IF EXISTS ${database}.swaps_daily_refresh;

-- Computed again every minute from the records that can still change an open day, or one that was still open for the
-- records that were stored since it was last computed (after days without a recorder, or from a topic's beginning on), so that no repeat, reorganisation or
-- retried insert can ever be added to a sum twice. A day stays in the result when nothing of it counts any more: a row of
-- zeros has to replace the older one.
CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.swaps_daily_refresh
REFRESH EVERY 1 MINUTE APPEND TO ${database}.swaps_daily AS
SELECT
    event_date,
    chain_id,
    token,
    sumIf(amount_usd, counts) AS volume_usd,
    sumIf(toDecimal256(amount_token, 18), counts) AS volume_token,
    countIf(counts) AS trades,
    countIf(counts AND side = 'buy') AS buy_trades,
    countIf(counts AND side != 'buy') AS sell_trades,
    countIf(late) AS late_trades,
    sumIf(amount_usd, late) AS late_volume_usd,
    now64(3, 'UTC') AS computed_at
FROM (${open_days_decided})
WHERE event_date >= ${oldest_day}
GROUP BY event_date, chain_id, token
SETTINGS max_bytes_before_external_group_by = 2000000000
COMMENT '${checksum}';
