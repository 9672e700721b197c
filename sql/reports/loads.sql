-- in: landfall.loads
-- out: stream, loads, records_read, merged, superseded, quarantined, deleted, last_finished_at, contract_version
-- grain: one row per stream that was ever loaded
-- params: none
SELECT
    source || '.' || stream AS stream,
    count(*) FILTER (WHERE batch_to >= 0) AS loads,
    sum(records_read) AS records_read,
    sum(merged) AS merged,
    sum(superseded) AS superseded,
    sum(quarantined) AS quarantined,
    sum(deleted) AS deleted,
    max(finished_at) AS last_finished_at,
    last_value(contract_version ORDER BY batch_to) AS contract_version
FROM landfall.loads
GROUP BY source, stream
ORDER BY source, stream
