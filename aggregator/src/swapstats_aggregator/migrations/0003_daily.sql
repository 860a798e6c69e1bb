-- What traded per UTC day. Computed again every minute from the open days' rows, and the newest computation of a day
-- wins, so that no repeat, reorganisation or retried insert can ever be added to a sum twice.
CREATE TABLE IF NOT EXISTS ${database}.swaps_daily
(
    event_date   Date,
    chain_id     UInt32,
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

-- An inclusion counts once, as the first of its adds says, and only while no `removed` of it exists. Its day stays in
-- the result when all of it is removed: a row of zeros has to replace the older one.
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

CREATE VIEW IF NOT EXISTS ${database}.daily AS
SELECT event_date, chain_id, token, volume_usd, volume_token, trades, buy_trades, sell_trades
FROM ${database}.swaps_daily FINAL
WHERE trades > 0;
