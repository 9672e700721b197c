-- in: landfall.loads
-- out: stream, load_id, started_at, contract_version, records_read, merged, superseded, quarantined, rescued
-- grain: one row per load, the newest $loads_max of each stream, the oldest of these first
-- params: $streams (list of text: source.stream), $loads_max (integer)
SELECT stream, load_id, started_at, contract_version, records_read, merged, superseded, quarantined, rescued
FROM (
    SELECT
        source || '.' || stream AS stream,
        load_id,
        started_at,
        contract_version,
        records_read,
        merged,
        superseded,
        quarantined,
        rescued,
        batch_to,
        row_number() OVER (PARTITION BY source, stream ORDER BY batch_to DESC) AS back
    FROM landfall.loads
    -- A release is no load: it reads no batch.
    WHERE array_has($streams, source || '.' || stream) AND batch_to >= 0
)
WHERE back <= $loads_max
ORDER BY batch_to
