-- in: landfall.drift, landfall.loads
-- out: kind, path, expected, found, seen, records, contract_version
-- grain: one row per load, path and kind of change of one stream against its own contract; newest first
-- params: $source (text), $stream (text)
WITH own AS (
    SELECT drift.*
    FROM landfall.drift AS drift
    -- A load is told by the version of the stream's own contract; what others judge is not for it to take.
    JOIN landfall.loads AS loads
        ON loads.load_id = drift.load_id AND loads.contract_version = drift.contract_version
    WHERE drift.source = $source AND drift.stream = $stream AND drift.effect <> 'coerced'
)
SELECT
    arrow_cast(kind, 'Utf8') AS kind,
    arrow_cast(path, 'Utf8') AS path,
    arrow_cast(expected, 'Utf8') AS expected,
    arrow_cast(found, 'Utf8') AS found,
    "count" AS seen,
    records,
    arrow_cast(contract_version, 'Utf8') AS contract_version
FROM own
ORDER BY batch_to DESC, path, kind
LIMIT 20000
