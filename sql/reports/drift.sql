-- in: landfall.drift, landfall.loads
-- out: stream, path, kind, effect, severity, expected, found, seen, records, loads, times, loads_since, first_seen, last_seen, contract_first, contract_last, contract_now, natures, samples_first, samples_last
-- grain: one row per stream, path, kind, and whether values were read without loss, over all loads
-- params: $streams (list of text: source.stream)
WITH numbered AS (
    -- Loads without records show nothing, so they do not interrupt what is seen in every load.
    SELECT
        source,
        stream,
        load_id,
        contract_version,
        batch_to,
        sum(CASE WHEN records_read > 0 THEN 1 ELSE 0 END) OVER (PARTITION BY source, stream ORDER BY batch_to) AS number
    FROM landfall.loads
    -- A release is no load: it reads no batch.
    WHERE array_has($streams, source || '.' || stream) AND batch_to >= 0
),
newest AS (
    SELECT
        source,
        stream,
        max(number) AS number,
        last_value(contract_version ORDER BY batch_to) AS contract_version
    FROM numbered
    GROUP BY source, stream
),
seen AS (
    SELECT
        drift.source,
        drift.stream,
        drift.path,
        drift.kind,
        drift.effect,
        coalesce(drift.severity, 'informational') AS severity,
        drift.expected,
        drift.found,
        drift."count" AS seen,
        drift.records,
        drift.load_id,
        drift.observed_at,
        drift.contract_version,
        coalesce(drift.nature, '[]') AS nature,
        coalesce(drift.samples, '[]') AS samples,
        numbered.batch_to,
        numbered.number,
        lag(numbered.number) OVER (
            PARTITION BY drift.source, drift.stream, drift.path, drift.kind, drift.effect = 'coerced'
            ORDER BY numbered.batch_to
        ) AS number_before
    FROM landfall.drift AS drift
    JOIN numbered
        ON numbered.source = drift.source AND numbered.stream = drift.stream AND numbered.load_id = drift.load_id
)
SELECT
    seen.source || '.' || seen.stream AS stream,
    seen.path,
    seen.kind,
    last_value(seen.effect ORDER BY seen.batch_to, seen.contract_version) AS effect,
    last_value(seen.severity ORDER BY seen.batch_to, seen.contract_version) AS severity,
    last_value(seen.expected ORDER BY seen.batch_to, seen.contract_version) AS expected,
    last_value(seen.found ORDER BY seen.batch_to, seen.contract_version) AS found,
    sum(seen.seen) AS seen,
    sum(seen.records) AS records,
    count(DISTINCT seen.load_id) AS loads,
    sum(CASE WHEN seen.number_before IS NULL OR seen.number > seen.number_before + 1 THEN 1 ELSE 0 END) AS times,
    first_value(newest.number) - max(seen.number) AS loads_since,
    min(seen.observed_at) AS first_seen,
    max(seen.observed_at) AS last_seen,
    first_value(seen.contract_version ORDER BY seen.batch_to, seen.contract_version) AS contract_first,
    last_value(seen.contract_version ORDER BY seen.batch_to, seen.contract_version) AS contract_last,
    first_value(newest.contract_version) AS contract_now,
    array_agg(DISTINCT seen.nature) AS natures,
    first_value(seen.samples ORDER BY seen.batch_to, seen.contract_version) AS samples_first,
    last_value(seen.samples ORDER BY seen.batch_to, seen.contract_version) AS samples_last
FROM seen
JOIN newest
    ON newest.source = seen.source AND newest.stream = seen.stream
GROUP BY seen.source, seen.stream, seen.path, seen.kind, seen.effect = 'coerced'
