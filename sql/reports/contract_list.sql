-- in: landfall.contracts
-- out: version, status, registered_at, compatibility, changes, sha256, record_versions, text
-- grain: one row per registered version of one stream's contracts, oldest first
-- params: $source (text), $stream (text)
SELECT
    version,
    status,
    registered_at,
    compatibility,
    changes,
    sha256,
    record_versions,
    text
FROM landfall.contracts
WHERE source = $source AND stream = $stream AND text IS NOT NULL
ORDER BY registered_at, version
