-- in: stream_quarantine, the quarantine of one stream
-- out: class, place, records, record_bytes, expected, found, first_seen, last_seen, batch_first, batch_last, sample, record
-- grain: one row per class and place; list positions within a record do not count
-- params: $since (timestamp)
SELECT
    class,
    regexp_replace(path, '\[[0-9]+\]', '[]', 'g') AS place,
    count(*) AS records,
    sum(record_bytes) AS record_bytes,
    first_value(expected ORDER BY _lf_batch, _lf_page, _lf_record) FILTER (WHERE expected IS NOT NULL) AS expected,
    first_value(found ORDER BY _lf_batch, _lf_page, _lf_record) FILTER (WHERE expected IS NOT NULL) AS found,
    min(quarantined_at) AS first_seen,
    max(quarantined_at) AS last_seen,
    min(_lf_batch) AS batch_first,
    max(_lf_batch) AS batch_last,
    coalesce(
        first_value(_lf_batch || '/' || _lf_page || '/' || _lf_record ORDER BY _lf_batch, _lf_page, _lf_record)
            FILTER (WHERE expected IS NOT NULL),
        first_value(_lf_batch || '/' || _lf_page || '/' || _lf_record ORDER BY _lf_batch, _lf_page, _lf_record)
    ) AS sample,
    first_value(record ORDER BY _lf_batch, _lf_page, _lf_record) FILTER (WHERE expected IS NOT NULL) AS record
FROM stream_quarantine
GROUP BY class, regexp_replace(path, '\[[0-9]+\]', '[]', 'g')
HAVING max(quarantined_at) >= $since
