-- in: landfall.drift
-- out: kind, path, expected, found, seen, records
-- grain: one row per load, path and kind of change, seen under one version of one stream's contract; newest first
-- params: $source (text), $stream (text), $version (text)
SELECT
    arrow_cast(kind, 'Utf8') AS kind,
    arrow_cast(path, 'Utf8') AS path,
    arrow_cast(expected, 'Utf8') AS expected,
    arrow_cast(found, 'Utf8') AS found,
    "count" AS seen,
    records
FROM landfall.drift
WHERE source = $source AND stream = $stream AND contract_version = $version AND effect <> 'coerced'
ORDER BY batch_to DESC, path, kind
LIMIT 20000
