-- in: landfall.contracts
-- out: version, sha256, text, changes, record_versions, registered_at (microseconds)
-- grain: one row per registered version of one stream's contract, in no order: a sort would ask for more memory than a load may have
-- params: $source (text), $stream (text)
SELECT
    arrow_cast(version, 'Utf8') AS version,
    arrow_cast(sha256, 'Utf8') AS sha256,
    arrow_cast(text, 'Utf8') AS text,
    arrow_cast(changes, 'Utf8') AS changes,
    arrow_cast(record_versions, 'Utf8') AS record_versions,
    arrow_cast(arrow_cast(registered_at, 'Timestamp(Microsecond, Some("UTC"))'), 'Int64') AS registered_at
FROM landfall.contracts
WHERE source = $source AND stream = $stream
