-- in: landfall.drift
-- out: stream, path, kind, effect, expected, found, seen, records, loads, first_seen, last_seen
-- grain: one row per stream, path, kind, effect and expectation, over all loads
-- params: $streams (list of text: source.stream)
SELECT
    source || '.' || stream AS stream,
    path,
    kind,
    effect,
    expected,
    last_value(found ORDER BY batch_to) AS found,
    sum("count") AS seen,
    sum(records) AS records,
    count(DISTINCT load_id) AS loads,
    min(observed_at) AS first_seen,
    max(observed_at) AS last_seen
FROM landfall.drift
WHERE array_has($streams, source || '.' || stream)
GROUP BY source, stream, path, kind, effect, expected
ORDER BY source, stream, path, kind, effect, expected
