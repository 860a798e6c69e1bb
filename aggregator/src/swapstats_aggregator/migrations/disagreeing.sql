-- The events whose records, of those that matter, disagree, or one of which is a removal.
SELECT chain_id, tx_hash, log_index, token
FROM ${database}.swap_records AS record
WHERE ${records_that_matter}
GROUP BY chain_id, tx_hash, log_index, token
HAVING NOT ${say_the_same}
