-- Applied again whenever the resource asks for other ages; this file has no version.
ALTER TABLE ${database}.swap_records
    MODIFY TTL ${move_to_cold}toDateTime(event_time) + toIntervalSecond(${delete_after_seconds}) DELETE;

ALTER TABLE ${database}.raw_swaps
    MODIFY TTL ${move_to_cold}toDateTime(event_time) + toIntervalSecond(${delete_after_seconds}) DELETE;
