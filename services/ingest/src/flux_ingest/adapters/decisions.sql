-- name: lock_agency
-- Two lanes of one agency may carry the same request id (a producer chooses its Kafka partitions): they decide in turn,
-- so that neither meets a key that the other took after it looked.
SELECT pg_advisory_xact_lock(hashtextextended('flux_ingest/' || $1, 0))

-- name: known
-- All that a batch touches in one round trip, for others wait for the agency meanwhile. The last two are empty unless a
-- lane was set back: what was refused once, alone or in a flood, is not judged anew.
SELECT 'request' AS what, r.request_id AS name, r.request_sha256 AS sha256, r.topic, r.kafka_partition, r.kafka_offset,
       NULL AS code
  FROM requests r WHERE r.agency_id = $1 AND r.request_id = ANY ($2::text[])
UNION ALL
SELECT 'command', c.command_id, c.command_sha256, c.topic, c.kafka_partition, c.kafka_offset, NULL
  FROM commands c WHERE c.agency_id = $1 AND c.command_id = ANY ($3::text[])
UNION ALL
SELECT 'use', encode(u.use_digest, 'hex'), u.body_sha256, u.topic, u.kafka_partition, u.kafka_offset, NULL
  FROM token_uses u WHERE u.agency_id = $1 AND u.use_digest = ANY ($4::bytea[])
UNION ALL
SELECT 'refusal', NULL, NULL, r.topic, r.kafka_partition, r.kafka_offset, r.code FROM rejections r
 WHERE r.agency_id = $1 AND r.topic = $5 AND r.kafka_partition = $6 AND r.kafka_offset >= $7 AND r.kafka_offset < $8
UNION ALL
SELECT 'refusal', NULL, NULL, f.topic, f.kafka_partition, one.kafka_offset, 'INTAKE_FLOODED' FROM floods f
 CROSS JOIN unnest(f.offsets * int8multirange(int8range($7, $8))) AS part (range)
 CROSS JOIN generate_series(lower(part.range), upper(part.range) - 1) AS one (kafka_offset)
 WHERE f.agency_id = $1 AND f.topic = $5 AND f.kafka_partition = $6 AND f.last_offset >= $7

-- name: save
-- Everything of one lane's batch in one round trip; of what there is nothing, its arrays are empty.
WITH accepted AS (
    INSERT INTO requests (agency_id, request_id, run_id, request_sha256, topic, kafka_partition, kafka_offset, accepted_at)
    SELECT $1, x.request_id, x.run_id, x.request_sha256, $2, $3, x.kafka_offset, $4
      FROM unnest($5::text[], $6::uuid[], $7::bytea[], $8::bigint[]) AS x (request_id, run_id, request_sha256, kafka_offset)
     ORDER BY x.request_id),
ordered AS (
    INSERT INTO commands (agency_id, command_id, request_id, command_sha256, topic, kafka_partition, kafka_offset, accepted_at)
    SELECT $1, x.command_id, x.request_id, x.command_sha256, $2, $3, x.kafka_offset, $4
      FROM unnest($9::text[], $10::text[], $11::bytea[], $12::bigint[]) AS x (command_id, request_id, command_sha256, kafka_offset)
     ORDER BY x.command_id),
spent AS (
    INSERT INTO token_uses (agency_id, use_digest, body_sha256, topic, kafka_partition, kafka_offset, expires_at)
    SELECT $1, x.use_digest, x.body_sha256, $2, $3, x.kafka_offset, x.expires_at
      FROM unnest($13::bytea[], $14::bytea[], $15::bigint[], $16::timestamptz[]) AS x (use_digest, body_sha256, kafka_offset, expires_at)
     ORDER BY x.use_digest),
refused AS (
    INSERT INTO rejections (agency_id, topic, kafka_partition, kafka_offset, request_id, code, rejected_at)
    SELECT $1, $2, $3, x.kafka_offset, x.request_id, x.code, $4
      FROM unnest($17::bigint[], $18::text[], $19::text[]) AS x (kafka_offset, request_id, code)
     ORDER BY x.kafka_offset)
INSERT INTO floods (agency_id, topic, kafka_partition, last_offset, offsets, refused, decided_at)
SELECT $1, $2, $3, max(x.last), range_agg(int8range(x.first, x.last, '[]')), sum(x.last - x.first + 1), $4
  FROM unnest($20::bigint[], $21::bigint[]) AS x (first, last)
HAVING count(*) > 0

-- name: count_refusals
-- Under the agency's lock: returns how many each minute had before.
INSERT INTO refusals AS r (agency_id, minute, refused)
SELECT $1, x.minute, x.refused FROM unnest($2::timestamptz[], $3::bigint[]) AS x (minute, refused)
 ORDER BY x.minute
ON CONFLICT (agency_id, minute) DO UPDATE SET refused = r.refused + excluded.refused
RETURNING minute, refused

-- name: forget_refusals
-- Minutes whose records no topic holds any more.
DELETE FROM refusals r WHERE r.agency_id = $1 AND r.minute < $2

-- name: forget_uses
-- Bounded, oldest first; what is forgotten is refused for its age whatever comes.
DELETE FROM token_uses u
 USING (SELECT o.use_digest FROM token_uses o WHERE o.agency_id = $1 AND o.expires_at < $2
         ORDER BY o.expires_at LIMIT $3) AS old
 WHERE u.agency_id = $1 AND u.use_digest = old.use_digest
RETURNING u.use_digest
