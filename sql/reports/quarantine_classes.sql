-- in: landfall.quarantine
-- out: stream, class, place, records, record_bytes, expected, found, first_seen, last_seen, sample, record
-- grain: one row per stream, class and place; list positions within a record do not count
-- params: $streams (list of text: source.stream), $rows_max (integer)
SELECT
    source || '.' || stream AS stream,
    class,
    regexp_replace(path, '\[[0-9]+\]', '[]', 'g') AS place,
    count(*) AS records,
    sum(record_bytes) AS record_bytes,
    first_value(expected ORDER BY _lf_batch, _lf_page, _lf_record) FILTER (WHERE expected IS NOT NULL) AS expected,
    first_value(found ORDER BY _lf_batch, _lf_page, _lf_record) FILTER (WHERE expected IS NOT NULL) AS found,
    min(quarantined_at) AS first_seen,
    max(quarantined_at) AS last_seen,
    coalesce(
        first_value(_lf_batch || '/' || _lf_page || '/' || _lf_record ORDER BY _lf_batch, _lf_page, _lf_record)
            FILTER (WHERE expected IS NOT NULL),
        first_value(_lf_batch || '/' || _lf_page || '/' || _lf_record ORDER BY _lf_batch, _lf_page, _lf_record)
    ) AS sample,
    first_value(record ORDER BY _lf_batch, _lf_page, _lf_record) FILTER (WHERE expected IS NOT NULL) AS record
FROM landfall.quarantine
WHERE array_has($streams, source || '.' || stream)
GROUP BY source, stream, class, regexp_replace(path, '\[[0-9]+\]', '[]', 'g')
ORDER BY source, stream, records DESC, class, place
LIMIT $rows_max
