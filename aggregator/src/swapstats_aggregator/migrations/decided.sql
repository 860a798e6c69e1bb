-- Which records count: a SELECT for the views of counting.sql and for `swapstats verify`, with ${details} of each record.
-- Of nearly every event no removal is known, and all its records say the same: it counts, or is late if even the first is,
-- since later ones are later still.
SELECT
    chain_id, tx_hash, log_index, token, any(record.event_date) AS event_date, any(record.amount_usd) AS amount_usd,
    any(record.amount_token) AS amount_token, any(record.side) AS side, min(record.late) AS late,
    ${first_details} AS details, NOT late AS counts, 1 AS stands
FROM ${database}.swap_records AS record
WHERE ${records_that_matter}
GROUP BY chain_id, tx_hash, log_index, token
HAVING ${say_the_same}
UNION ALL
-- Of the others every record is given, so that a day from which one is taken away is computed again. Each subquery
-- computes once what the next one uses: a name within one SELECT stands for its whole expression.
SELECT
    chain_id, tx_hash, log_index, token, each.2.1 AS event_date, each.2.2 AS amount_usd, each.2.3 AS amount_token,
    each.2.4 AS side, each.1 = late_at AS late, each.2.6 AS details, has(counted, each.1) AS counts,
    each.1 = if(empty(counted), greatest(late_at, toUInt32(1)), counted[-1]) AS stands
FROM
(
    SELECT
        chain_id, tx_hash, log_index, token, records, if(empty(counted), fate.late, toUInt32(0)) AS late_at,
        if(fate.counting = 0, fate.kept, arrayPushBack(fate.kept, fate.counting)) AS counted
    FROM
    (
        WITH
${fate}
        SELECT chain_id, tx_hash, log_index, token, records, fate_of(mentioned) AS fate
        FROM
        (
            SELECT
                chain_id, tx_hash, log_index, token, records,
                arrayMap((found, at) -> CAST(
                    ((at, found.3.1, found.3.2, found.3.3, found.3.4, found.3.5, 0), found.2, found.1.5), '${record}'
                ), records, arrayEnumerate(records)) AS mentioned
            FROM
            (
                SELECT
                    chain_id, tx_hash, log_index, token,
                    -- Offsets begin again with each life of the topic, and of one life all rows are stored before the next.
                    minMap([toString(incarnation)], [toUnixTimestamp64Milli(recorded_at)]) AS lives,
                    arraySort(found -> (found.2, lives.2[indexOf(lives.1, found.5)], found.4), groupUniqArray((
                        (event_date, amount_usd, amount_token, side, late, ${details}),
                        toUnixTimestamp64Milli(stream_time),
                        (removed, ifNull(block_hash, ''), ifNull(toInt64(block_number), -1), ifNull(toInt64(revision), -1),
                         (toUnixTimestamp64Milli(event_time), amount_usd, amount_token, side = 'buy')),
                        kafka_offset,
                        toString(incarnation)
                    ))) AS records
                FROM
                (
                    SELECT * FROM ${database}.swap_records
                    WHERE ${records_that_matter} AND (chain_id, tx_hash, log_index, token) IN (${disagreeing})
                    UNION ALL
                    -- Each mention renews the memory of its event, so a chain of them may begin at any time before.
                    SELECT * FROM ${database}.swap_records
                    WHERE ${earlier_records} AND (chain_id, tx_hash, log_index, token) IN
                    (
                        SELECT chain_id, tx_hash, log_index, token
                        FROM ${database}.swap_records
                        WHERE ${records_that_matter} AND (chain_id, tx_hash, log_index, token) IN (${disagreeing})
                        GROUP BY chain_id, tx_hash, log_index, token
                        HAVING ${reach_back}
                    )
                ) AS record
                GROUP BY chain_id, tx_hash, log_index, token
            )
        )
    )
)
ARRAY JOIN arrayZip(arrayEnumerate(records), arrayMap(found -> found.1, records)) AS each
