-- in: landfall.drift
-- out: stream, path, kind, coerced, load_id, seen
-- grain: one row per change and load, since $since
-- params: $streams (list of text: source.stream), $since (timestamp)
SELECT
    source || '.' || stream AS stream,
    path,
    kind,
    effect = 'coerced' AS coerced,
    load_id,
    sum("count") AS seen
FROM landfall.drift
WHERE array_has($streams, source || '.' || stream) AND observed_at >= $since
GROUP BY source, stream, path, kind, effect = 'coerced', load_id
