-- in: landfall.loads
-- out: load_id, contract_version, started_at
-- grain: the load that covered one raw batch of one stream; the newest, should there be several
-- params: $source (text), $stream (text), $batch (integer)
SELECT load_id, contract_version, started_at
FROM landfall.loads
WHERE source = $source AND stream = $stream AND $batch BETWEEN batch_from AND batch_to
ORDER BY started_at DESC
LIMIT 1
