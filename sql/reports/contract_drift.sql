-- in: landfall.drift
-- out: kind, path, expected, found, seen, records, contract_version
-- grain: one row per load, path and kind of change of one stream; newest first
-- params: $source (text), $stream (text)
SELECT
    arrow_cast(kind, 'Utf8') AS kind,
    arrow_cast(path, 'Utf8') AS path,
    arrow_cast(expected, 'Utf8') AS expected,
    arrow_cast(found, 'Utf8') AS found,
    "count" AS seen,
    records,
    arrow_cast(contract_version, 'Utf8') AS contract_version
FROM landfall.drift
WHERE source = $source AND stream = $stream AND effect <> 'coerced'
ORDER BY batch_to DESC, path, kind
LIMIT 20000
