-- in: landfall.contracts
-- out: version, status, registered_at, compatibility, changes, sha256, record_versions
-- grain: one row per registered version of one stream's contract, oldest first
-- params: $source (text), $stream (text)
SELECT
    version,
    status,
    registered_at,
    compatibility,
    changes,
    sha256,
    record_versions
FROM landfall.contracts
WHERE source = $source AND stream = $stream
ORDER BY registered_at, version
