-- Applied again whenever the resource asks for another policy or other ages; this file has no version. Without a policy the
-- first two are empty: a table that has one keeps it, since its rows may be on the policy's disks.
${policy_of_records};
${policy_of_raw_swaps};

ALTER TABLE ${database}.swap_records
    MODIFY TTL ${move_to_cold}toDateTime(event_time) + toIntervalSecond(${delete_after_seconds}) DELETE;

ALTER TABLE ${database}.raw_swaps
    MODIFY TTL ${move_to_cold}toDateTime(event_time) + toIntervalSecond(${delete_after_seconds}) DELETE;
