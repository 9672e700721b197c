-- in: landfall.acknowledged
-- out: stream, path, kind, acknowledged_at, nature, note
-- grain: one row per time a change was acknowledged, the oldest first
-- params: $streams (list of text: source.stream)
SELECT
    source || '.' || stream AS stream,
    path,
    kind,
    acknowledged_at,
    nature,
    note
FROM landfall.acknowledged
WHERE array_has($streams, source || '.' || stream)
ORDER BY acknowledged_at
