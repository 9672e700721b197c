-- in: landfall.contracts
-- out: stream, version, changes
-- grain: one row per registered version of each stream's own contract, oldest first
-- params: $streams (list of text: source.stream)
SELECT
    arrow_cast(source || '.' || stream, 'Utf8') AS stream,
    arrow_cast(version, 'Utf8') AS version,
    arrow_cast(changes, 'Utf8') AS changes
FROM landfall.contracts
WHERE array_has($streams, source || '.' || stream) AND record_versions IS NULL
ORDER BY registered_at, version
