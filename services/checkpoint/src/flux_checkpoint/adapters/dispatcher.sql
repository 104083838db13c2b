-- name: acquire_lease
UPDATE dispatcher_leases SET holder = $2, term = CASE WHEN holder = $2 THEN term ELSE term + 1 END,
       expires_at = now() + make_interval(secs => $3)
 WHERE shard = $1 AND (expires_at < now() OR holder = $2)
RETURNING term

-- name: release_lease
UPDATE dispatcher_leases SET expires_at = '-infinity' WHERE shard = $1 AND term = $2

-- name: lock_lease
-- First statement of every pass: a dispatcher whose term is over touches nothing else.
UPDATE dispatcher_leases SET expires_at = now() + make_interval(secs => $3) WHERE shard = $1 AND term = $2
RETURNING now()

-- name: due
SELECT agency_id, run_id FROM agenda WHERE shard = $1 AND due_at <= now() ORDER BY due_at, agency_id, run_id LIMIT $2

-- name: look_again
UPDATE agenda SET due_at = $3 WHERE agency_id = $1 AND run_id = $2

-- name: off_agenda
DELETE FROM agenda WHERE agency_id = $1 AND run_id = $2

-- name: agencies
SELECT agency_id FROM agencies WHERE shard = $1 ORDER BY agency_id

-- name: all_agencies
SELECT agency_id FROM agencies ORDER BY agency_id

-- name: open_runs
SELECT state, count(*) AS count, extract(epoch FROM now() - min(changed_at))::float8 AS silence_s
  FROM flux.runs
 WHERE agency_id = ANY ($1::text[]) AND state NOT IN ('COMPLETED', 'CANCELLED', 'FAILED')
 GROUP BY state

-- name: sweep
-- The backstop: an open run that the agenda forgot. Each one found is a fault of ours, counted and mended.
INSERT INTO agenda (shard, agency_id, run_id, due_at)
SELECT $1, r.agency_id, r.run_id, now()
  FROM flux.runs r
 WHERE r.agency_id = ANY ($2::text[]) AND r.state NOT IN ('COMPLETED', 'CANCELLED', 'FAILED')
   AND NOT EXISTS (SELECT FROM agenda a WHERE a.agency_id = r.agency_id AND a.run_id = r.run_id)
 ORDER BY r.agency_id, r.run_id
ON CONFLICT DO NOTHING
RETURNING run_id

-- name: tallies
-- Bytes stand still at what JSON can say (COUNT_MAX): a sum beyond it must not stop the pass that fails the run.
SELECT kind,
       count(*) FILTER (WHERE state = 'PENDING') AS pending,
       count(*) FILTER (WHERE state = 'DISPATCHED') AS dispatched,
       count(*) FILTER (WHERE state = 'RUNNING') AS running,
       count(*) FILTER (WHERE state = 'FINISHED') AS finished,
       count(*) FILTER (WHERE state = 'FAILED') AS failed,
       sum(read)::bigint AS read, sum(written)::bigint AS written, sum(rejected)::bigint AS rejected,
       least(sum(bytes_in), 9007199254740991)::bigint AS bytes_in,
       least(sum(bytes_out), 9007199254740991)::bigint AS bytes_out,
       min(not_before) FILTER (WHERE state = 'PENDING' AND not_before > now()) AS next_due
  FROM flux.checkpoints
 WHERE agency_id = $1 AND run_id = $2
 GROUP BY kind

-- name: due_items
-- What may go out, steps before partitions, with the last link of each chain to compare the head with.
SELECT c.*, h.hash AS last_hash
  FROM flux.checkpoints c
  LEFT JOIN flux.checkpoint_hashes h
    ON h.agency_id = c.agency_id AND h.run_id = c.run_id AND h.kind = c.kind AND h.number = c.number AND h.seq = c.last_seq
 WHERE c.agency_id = $1 AND c.run_id = $2 AND c.state = 'PENDING' AND c.not_before <= now()
 ORDER BY c.kind DESC, c.number
 LIMIT $3
   FOR UPDATE OF c

-- name: stalled_items
-- Silence is measured on the lane's watermark: lag or an outage is not mistaken for death. So is the time without a slice,
-- from the worker's first word on: an item may lie in the queue as long as it likes.
SELECT c.*
  FROM flux.checkpoints c
  LEFT JOIN lanes l ON l.topic = $3 AND l.kafka_partition = c.kafka_partition
 WHERE c.agency_id = $1 AND c.run_id = $2
   AND ((c.state = 'RUNNING' AND l.watermark - c.last_heard > $4)
        OR (c.state = 'RUNNING' AND c.kind = 'extract' AND l.watermark - c.last_slice > $5)
        OR (c.state = 'DISPATCHED' AND now() - c.dispatched_at > $6))
 ORDER BY c.kind, c.number
   FOR UPDATE OF c

-- name: failed_item
SELECT * FROM flux.checkpoints WHERE agency_id = $1 AND run_id = $2 AND state = 'FAILED' ORDER BY changed_at LIMIT 1

-- name: agency_in_hand
SELECT count(*) FROM flux.checkpoints
 WHERE agency_id = $1 AND kind = 'extract' AND state IN ('DISPATCHED', 'RUNNING')

-- name: run_row
SELECT request::text AS request, manifest_uri, manifest_digest, manifest_files, manifest_rows
  FROM flux.runs WHERE agency_id = $1 AND run_id = $2

-- name: make_items
INSERT INTO flux.checkpoints (agency_id, run_id, kind, number, state, first_object, object_count)
SELECT $1, $2, $3, x.number, 'PENDING', x.first_object, x.object_count
  FROM unnest($4::integer[], $5::bigint[], $6::bigint[]) AS x (number, first_object, object_count)
 ORDER BY x.number
ON CONFLICT DO NOTHING

-- name: heads
SELECT number, last_seq, chain_head FROM flux.checkpoints
 WHERE agency_id = $1 AND run_id = $2 AND kind = 'extract' AND state = 'FINISHED' AND number >= $3
 ORDER BY number LIMIT $4

-- name: indexes
SELECT number, result_digest FROM flux.checkpoints
 WHERE agency_id = $1 AND run_id = $2 AND kind = 'gather' AND state = 'FINISHED'
 ORDER BY number

-- name: rejects_by_code
SELECT e.key AS code, sum(e.value::bigint)::bigint AS total
  FROM flux.checkpoints c CROSS JOIN LATERAL jsonb_each_text(c.rejects) e
 WHERE c.agency_id = $1 AND c.run_id = $2 AND c.kind = 'extract'
 GROUP BY e.key ORDER BY e.key

-- name: take_back
-- What an ended run still had in hand is in nobody's: it fills no window, and its term is raised.
UPDATE flux.checkpoints
   SET state = 'PENDING', term = term + 1, worker = NULL, last_heard = NULL, changed_at = now()
 WHERE agency_id = $1 AND run_id = $2 AND state IN ('DISPATCHED', 'RUNNING')

-- name: end_run
UPDATE flux.runs
   SET state = $3, terminal_attempt = run_attempt, cause = $4, code = $5, read = $6, written = $7, rejected = $8,
       bytes_in = $9, bytes_out = $10, ended_at = now(), changed_at = now(), expires_at = now() + $11
 WHERE agency_id = $1 AND run_id = $2 AND terminal_attempt < run_attempt
RETURNING ended_at
