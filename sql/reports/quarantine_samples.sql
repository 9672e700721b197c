-- in: stream_quarantine, the quarantine of one stream
-- out: sample, record
-- grain: one row per record at one of the places in raw that are named
-- params: $samples (list of text: batch/page/record)
SELECT
    arrow_cast(_lf_batch || '/' || _lf_page || '/' || _lf_record, 'Utf8') AS sample,
    record
FROM stream_quarantine
WHERE array_has($samples, _lf_batch || '/' || _lf_page || '/' || _lf_record)
