-- name: lanes
SELECT 'ingest' AS service, topic, kafka_partition, topic_id, owner_epoch, next_offset, ledger_floor, controls
  FROM flux_ingest.lanes
UNION ALL
SELECT 'checkpoint', topic, kafka_partition, topic_id, owner_epoch, next_offset, ledger_floor, controls
  FROM flux_checkpoint.lanes
UNION ALL
SELECT 'audit', topic, kafka_partition, topic_id, owner_epoch, next_offset, ledger_floor, controls
  FROM flux_audit.lanes

-- name: ledger
SELECT 'ingest' AS service, topic, kafka_partition, from_offset, to_offset, effects, duplicates, fenced, dead_letters,
       controls, lost
  FROM flux_ingest.ledger
UNION ALL
SELECT 'checkpoint', topic, kafka_partition, from_offset, to_offset, effects, duplicates, fenced, dead_letters, controls, lost
  FROM flux_checkpoint.ledger
UNION ALL
SELECT 'audit', topic, kafka_partition, from_offset, to_offset, effects, duplicates, fenced, dead_letters, controls, lost
  FROM flux_audit.ledger

-- name: exceptions
SELECT 'ingest' AS service, topic, kafka_partition, first_offset, last_offset, class AS fate, code
  FROM flux_ingest.ledger_exceptions
UNION ALL
SELECT 'checkpoint', topic, kafka_partition, first_offset, last_offset, class, code FROM flux_checkpoint.ledger_exceptions
UNION ALL
SELECT 'audit', topic, kafka_partition, first_offset, last_offset, class, code FROM flux_audit.ledger_exceptions

-- name: dead_letters
SELECT 'ingest' AS service, agency_id, topic, kafka_partition, kafka_offset, sha256, code FROM flux_ingest.dead_letters
UNION ALL
SELECT 'checkpoint', agency_id, topic, kafka_partition, kafka_offset, sha256, code FROM flux_checkpoint.dead_letters
UNION ALL
SELECT 'audit', agency_id, topic, kafka_partition, kafka_offset, sha256, code FROM flux_audit.dead_letters

-- name: outbox
-- The waiting and the parked together: both were decided and are not published.
SELECT 'ingest' AS service, false AS parked, id, shard, agency_id, number, event_id, topic, key, headers::text AS headers, value
  FROM flux_ingest.outbox
UNION ALL
SELECT 'ingest', true, id, shard, agency_id, NULL, event_id, topic, key, headers::text, value FROM flux_ingest.outbox_parked
UNION ALL
SELECT 'checkpoint', false, id, shard, agency_id, number, event_id, topic, key, headers::text, value
  FROM flux_checkpoint.outbox
UNION ALL
SELECT 'checkpoint', true, id, shard, agency_id, NULL, event_id, topic, key, headers::text, value
  FROM flux_checkpoint.outbox_parked
UNION ALL
SELECT 'audit', false, id, shard, agency_id, number, event_id, topic, key, headers::text, value FROM flux_audit.outbox
UNION ALL
SELECT 'audit', true, id, shard, agency_id, NULL, event_id, topic, key, headers::text, value FROM flux_audit.outbox_parked

-- name: leases
SELECT 'ingest' AS service, shard, relay_counter, last_cursor FROM flux_ingest.relay_leases
UNION ALL
SELECT 'checkpoint', shard, relay_counter, last_cursor FROM flux_checkpoint.relay_leases
UNION ALL
SELECT 'audit', shard, relay_counter, last_cursor FROM flux_audit.relay_leases

-- name: runs
SELECT agency_id, run_id, request_id, request::text AS request, request_sha256, state, run_attempt, terminal_attempt, cause,
       code, plan_digest, transform_version, objects, bytes_planned, partitions, partition_objects, partitions_made,
       objects_made, read, written, rejected, bytes_in, bytes_out, manifest_uri, manifest_digest, manifest_files,
       manifest_rows, kafka_partition, kafka_offset
  FROM flux.runs

-- name: items
SELECT agency_id, run_id, kind, number, state, term, first_object, object_count, last_seq, cursor, chain_head,
       result_digest, read, written, rejected, bytes_in, bytes_out, rejects::text AS rejects
  FROM flux.checkpoints

-- name: history
SELECT agency_id, event_no, run_id, kind, number, term, seq, type, code, body, source, kafka_partition, kafka_offset
  FROM flux.checkpoint_events

-- name: hashes
SELECT agency_id, run_id, number, seq, prev, hash, kafka_partition, kafka_offset FROM flux.checkpoint_hashes

-- name: leaves
SELECT agency_id, seq, event_id, entry, leaf_hash, receipt_for, kafka_partition, kafka_offset FROM flux.audit_log

-- name: heads
SELECT agency_id, size, frontier, root, signed_size, signed_head FROM flux_audit.tree_heads

-- name: nodes
SELECT agency_id, level, index, hash FROM flux_audit.nodes

-- name: requests
SELECT agency_id, request_id, run_id, request_sha256 AS sha256, topic, kafka_partition, kafka_offset
  FROM flux_ingest.requests

-- name: commands
SELECT agency_id, command_id, request_id, command_sha256 AS sha256, topic, kafka_partition, kafka_offset
  FROM flux_ingest.commands

-- name: rejections
SELECT agency_id, request_id, code, topic, kafka_partition, kafka_offset FROM flux_ingest.rejections

-- name: floods
SELECT f.agency_id, f.topic, f.kafka_partition, f.last_offset AS kafka_offset, f.refused,
       ARRAY(SELECT lower(part) FROM unnest(f.offsets) part ORDER BY part) AS firsts,
       ARRAY(SELECT upper(part) - 1 FROM unnest(f.offsets) part ORDER BY part) AS lasts
  FROM flux_ingest.floods f

-- name: uses
SELECT agency_id, use_digest, body_sha256 AS sha256, topic, kafka_partition, kafka_offset FROM flux_ingest.token_uses

-- name: agenda
SELECT shard, agency_id, run_id FROM flux_checkpoint.agenda
