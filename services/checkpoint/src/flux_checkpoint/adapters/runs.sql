-- name: lock_runs
-- Sorted, so that two transactions never wait for each other in a ring.
SELECT r.*
  FROM flux.runs r
  JOIN (SELECT DISTINCT agency_id, run_id FROM unnest($1::text[], $2::uuid[]) AS k (agency_id, run_id)) k
    ON r.agency_id = k.agency_id AND r.run_id = k.run_id
 ORDER BY r.agency_id, r.run_id
   FOR UPDATE OF r

-- name: lock_items
SELECT c.*
  FROM flux.checkpoints c
  JOIN (SELECT DISTINCT agency_id, run_id, kind, number
          FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[]) AS k (agency_id, run_id, kind, number)) k
    ON c.agency_id = k.agency_id AND c.run_id = k.run_id AND c.kind = k.kind AND c.number = k.number
 ORDER BY c.agency_id, c.run_id, c.kind, c.number
   FOR UPDATE OF c

-- name: insert_runs
-- A run that is there already was admitted before: the same accepted request always names the same run.
INSERT INTO flux.runs (agency_id, run_id, request_id, request, request_sha256, state, run_window, agency_window,
                       traceparent, kafka_partition, kafka_offset, admitted_at, deadline)
SELECT x.agency_id, x.run_id, x.request_id, x.request, x.request_sha256, 'ADMITTED', x.run_window, x.agency_window,
       x.traceparent, x.kafka_partition, x.kafka_offset, x.admitted_at, x.deadline
  FROM unnest($1::text[], $2::uuid[], $3::text[], $4::jsonb[], $5::bytea[], $6::integer[], $7::integer[], $8::text[],
              $9::integer[], $10::bigint[], $11::timestamptz[], $12::timestamptz[])
       AS x (agency_id, run_id, request_id, request, request_sha256, run_window, agency_window, traceparent,
             kafka_partition, kafka_offset, admitted_at, deadline)
 ORDER BY x.agency_id, x.run_id, x.kafka_offset
ON CONFLICT DO NOTHING
RETURNING agency_id, run_id

-- name: insert_agencies
INSERT INTO agencies (agency_id, shard)
SELECT x.agency_id, x.shard FROM unnest($1::text[], $2::smallint[]) AS x (agency_id, shard) ORDER BY x.agency_id
ON CONFLICT DO NOTHING

-- name: save_runs
UPDATE flux.runs r
   SET state = x.state, run_attempt = x.run_attempt, pause_wanted = x.pause_wanted,
       cancel_command_id = x.cancel_command_id, cancel_deadline = x.cancel_deadline, broken_code = x.broken_code,
       plan_digest = x.plan_digest, transform_version = x.transform_version, objects = x.objects,
       partitions = x.partitions, deadline = x.deadline, partitions_made = x.partitions_made,
       objects_made = x.objects_made, changed_at = now(),
       ended_at = CASE WHEN x.state IN ('COMPLETED', 'CANCELLED', 'FAILED') THEN r.ended_at END,
       cause = CASE WHEN x.state IN ('COMPLETED', 'CANCELLED', 'FAILED') THEN r.cause END,
       code = CASE WHEN x.state IN ('COMPLETED', 'CANCELLED', 'FAILED') THEN r.code END
  FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::boolean[], $6::text[], $7::timestamptz[], $8::text[],
              $9::bytea[], $10::text[], $11::bigint[], $12::integer[], $13::timestamptz[], $14::integer[], $15::bigint[])
       AS x (agency_id, run_id, state, run_attempt, pause_wanted, cancel_command_id, cancel_deadline, broken_code,
             plan_digest, transform_version, objects, partitions, deadline, partitions_made, objects_made)
 WHERE r.agency_id = x.agency_id AND r.run_id = x.run_id

-- name: save_plan
-- The cut of a plan is written once; partitions are made from it in pages.
UPDATE flux.runs SET partition_objects = $3, bytes_planned = $4 WHERE agency_id = $1 AND run_id = $2

-- name: save_manifest
UPDATE flux.runs SET manifest_uri = $3, manifest_digest = $4, manifest_files = $5, manifest_rows = $6
 WHERE agency_id = $1 AND run_id = $2

-- name: save_items
UPDATE flux.checkpoints c
   SET state = x.state, term = x.term, attempt = x.attempt, not_before = coalesce(x.not_before, c.not_before),
       last_seq = x.last_seq, cursor = x.cursor, chain_head = x.chain_head, result_digest = x.result_digest,
       read = x.read, written = x.written, rejected = x.rejected, bytes_in = x.bytes_in, bytes_out = x.bytes_out,
       rejects = x.rejects, failure_code = x.failure_code, failure_cause = x.failure_cause, worker = x.worker,
       last_heard = x.last_heard, last_slice = x.last_slice, kafka_partition = x.kafka_partition,
       dispatched_at = CASE WHEN x.state = 'DISPATCHED' THEN now() ELSE c.dispatched_at END, changed_at = now()
  FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::integer[],
              $8::timestamptz[], $9::integer[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bigint[], $14::bigint[],
              $15::bigint[], $16::bigint[], $17::bigint[], $18::jsonb[], $19::text[], $20::text[], $21::text[],
              $22::timestamptz[], $23::timestamptz[], $24::integer[])
       AS x (agency_id, run_id, kind, number, state, term, attempt, not_before, last_seq, cursor, chain_head,
             result_digest, read, written, rejected, bytes_in, bytes_out, rejects, failure_code, failure_cause, worker,
             last_heard, last_slice, kafka_partition)
 WHERE c.agency_id = x.agency_id AND c.run_id = x.run_id AND c.kind = x.kind AND c.number = x.number

-- name: add_history
INSERT INTO flux.checkpoint_events (agency_id, run_id, kind, number, term, seq, type, code, detail, body, source,
                                    kafka_partition, kafka_offset)
SELECT x.agency_id, x.run_id, x.kind, x.number, x.term, x.seq, x.type, x.code, x.detail, x.body, x.source,
       x.kafka_partition, x.kafka_offset
  FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::integer[], $6::integer[], $7::text[], $8::text[],
              $9::jsonb[], $10::bytea[], $11::text[], $12::integer[], $13::bigint[]) WITH ORDINALITY
       AS x (agency_id, run_id, kind, number, term, seq, type, code, detail, body, source, kafka_partition,
             kafka_offset, place)
 ORDER BY x.place

-- name: digests
SELECT h.agency_id, h.run_id, h.number, h.seq, h.hash
  FROM flux.checkpoint_hashes h
  JOIN unnest($1::text[], $2::uuid[], $3::integer[], $4::integer[]) AS k (agency_id, run_id, number, seq)
    ON h.agency_id = k.agency_id AND h.run_id = k.run_id AND h.kind = 'extract' AND h.number = k.number AND h.seq = k.seq

-- name: add_hashes
-- A link that is there already is counted by who asks: the item, which is locked, would have known of it.
INSERT INTO flux.checkpoint_hashes (agency_id, run_id, number, seq, prev, hash, kafka_partition, kafka_offset)
SELECT x.agency_id, x.run_id, x.number, x.seq, x.prev, x.hash, x.kafka_partition, x.kafka_offset
  FROM unnest($1::text[], $2::uuid[], $3::integer[], $4::integer[], $5::bytea[], $6::bytea[], $7::integer[], $8::bigint[])
       AS x (agency_id, run_id, number, seq, prev, hash, kafka_partition, kafka_offset)
 ORDER BY x.agency_id, x.run_id, x.number, x.seq
ON CONFLICT DO NOTHING

-- name: put_on_agenda
INSERT INTO agenda (shard, agency_id, run_id, due_at)
SELECT x.shard, x.agency_id, x.run_id, now()
  FROM unnest($1::smallint[], $2::text[], $3::uuid[]) AS x (shard, agency_id, run_id)
 ORDER BY x.agency_id, x.run_id
ON CONFLICT (agency_id, run_id) DO UPDATE SET due_at = least(agenda.due_at, excluded.due_at)

-- name: items_in_states
SELECT c.* FROM flux.checkpoints c
 WHERE c.agency_id = $1 AND c.run_id = $2 AND c.state = ANY ($3::text[])
 ORDER BY c.kind, c.number
   FOR UPDATE

-- name: unfinished_partitions
SELECT count(*) FROM flux.checkpoints
 WHERE agency_id = $1 AND run_id = $2 AND kind = 'extract' AND state <> 'FINISHED'

-- name: restart_items
-- In one statement: a run may have fifty thousand items, and the transaction holds its lane.
UPDATE flux.checkpoints
   SET state = 'PENDING', term = term + 1, attempt = 0, not_before = now(), failure_code = NULL, failure_cause = NULL,
       worker = NULL, last_heard = NULL, changed_at = now()
 WHERE agency_id = $1 AND run_id = $2 AND state <> 'FINISHED'
