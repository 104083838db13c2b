-- What an operator reads, as flux_reader: one agency per transaction, under row-level security, and said again in each WHERE.

-- name: list_runs
-- Newest first; counts are summed over the partitions as they stand now, for the runs of this page alone.
SELECT s.run_id, s.request_id, s.state, s.run_attempt, s.objects, s.read, s.written, s.rejected, s.partitions,
       s.partitions_finished, s.cause, s.code, s.admitted_at, s.ended_at
  FROM (SELECT run_id, admitted_at FROM flux.runs
         WHERE agency_id = $1 AND ($2::text IS NULL OR state = $2)
         ORDER BY admitted_at DESC, run_id LIMIT $3) page
 CROSS JOIN LATERAL flux.run_summary($1, page.run_id) s
 ORDER BY page.admitted_at DESC, page.run_id

-- name: find_run
-- A run is named by its id or by its request's; where a text could be both, the run id wins.
SELECT run_id, request_id, state, run_attempt FROM flux.runs
 WHERE agency_id = $1 AND (run_id = $2 OR request_id = $3)
 ORDER BY (run_id = $2) DESC LIMIT 1

-- name: run
-- The summary, and what only the row itself knows.
SELECT s.run_id, s.request_id, s.state, s.run_attempt, s.cause, s.code, s.objects, s.partitions,
       s.partitions_finished, s.read, s.written, s.rejected, s.bytes_in, s.bytes_out, s.rejects, r.bytes_planned,
       r.request ->> 'content_type' AS content_type, r.request ->> 'use_case' AS use_case,
       r.request -> 'source' ->> 'uri' AS source_uri, r.request -> 'destination' ->> 'uri' AS destination_uri,
       r.request_sha256, r.plan_digest, r.manifest_uri, r.manifest_digest, r.manifest_files, r.manifest_rows,
       r.transform_version, r.pause_wanted, r.admitted_at, r.ended_at, r.deadline, r.expires_at
  FROM flux.runs r CROSS JOIN LATERAL flux.run_summary($1, r.run_id) s
 WHERE r.agency_id = $1 AND r.run_id = $2

-- name: items
-- How many partitions and steps stand in which state.
SELECT kind, state, count(*) AS items, sum(read)::bigint AS read, max(attempt) AS attempts
  FROM flux.checkpoints WHERE agency_id = $1 AND run_id = $2
 GROUP BY kind, state ORDER BY kind, state

-- name: summary
SELECT state, run_attempt, objects, read, rejected, partitions, partitions_finished, bytes_in, cause, code
  FROM flux.run_summary($1, $2)

-- name: events
-- The readable history, oldest first, from behind an event number on.
SELECT event_no, happened_at, type, kind, number, term, seq, code, detail, source, kafka_partition, kafka_offset
  FROM flux.checkpoint_events
 WHERE agency_id = $1 AND run_id = $2 AND event_no > $3
 ORDER BY event_no LIMIT $4

-- name: verify_chain
SELECT number, slices, head, fault FROM flux.verify_chain($1, $2)

-- name: explain_position
SELECT type, run_id, kind, number, term, seq, happened_at FROM flux.explain_position($1, $2, $3, $4)

-- name: sealed_at
-- Where a record of the facts topic was sealed. A scan of one agency's log: it is asked by a person, rarely.
SELECT seq, event_id, entry, sealed_at FROM flux.audit_log
 WHERE agency_id = $1 AND kafka_partition = $2 AND kafka_offset = $3

-- name: audit_entries
-- The last entries, newest first, or those before a given one.
SELECT seq, event_id, entry, sealed_at FROM flux.audit_log
 WHERE agency_id = $1 AND ($2::bigint IS NULL OR seq < $2)
 ORDER BY seq DESC LIMIT $3

-- name: audit_entry
-- An entry by its leaf index.
SELECT seq, event_id, receipt_for, entry, sealed_at, kafka_partition, kafka_offset FROM flux.audit_log
 WHERE agency_id = $1 AND seq = $2

-- name: audit_entries_of
-- The entries about an event: its own fact's, and the one that its receipt proves.
SELECT seq, event_id, receipt_for, entry, sealed_at, kafka_partition, kafka_offset FROM flux.audit_log
 WHERE agency_id = $1 AND (event_id = $2 OR receipt_for = $2)
 ORDER BY seq
