-- One row of nasa and one of loc in every table with an agency, and one in every other; esa, whose rows the matrix
-- inserts, has a run for them to belong to.

-- name: rows
INSERT INTO flux.runs (agency_id, run_id, request_id, request, request_sha256, state, run_window, agency_window,
                       kafka_partition, kafka_offset, admitted_at, deadline)
SELECT a, '00000000-0000-0000-0000-000000000001', 'r-1', '{}', sha256('x'), 'ADMITTED', 1, 1, 0, 0, now(), now()
  FROM unnest(ARRAY['nasa', 'loc', 'esa']) a;
INSERT INTO flux.checkpoints (agency_id, run_id, kind, number, state)
SELECT a, '00000000-0000-0000-0000-000000000001', 'plan', 0, 'PENDING' FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux.checkpoint_events (agency_id, run_id, type, source)
SELECT a, '00000000-0000-0000-0000-000000000001', 'x', 'dispatcher' FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux.checkpoint_hashes (agency_id, run_id, number, seq, prev, hash, kafka_partition, kafka_offset)
SELECT a, '00000000-0000-0000-0000-000000000001', 0, 1, sha256('a'), sha256('b'), 0, 0 FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux.audit_log (agency_id, seq, event_id, entry, leaf_hash, kafka_partition, kafka_offset)
SELECT a, 0, gen_random_uuid(), 'x', sha256('\x0078'), 0, 0 FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_ingest.requests (agency_id, request_id, run_id, request_sha256, topic, kafka_partition, kafka_offset, accepted_at)
SELECT a, 'r-1', gen_random_uuid(), sha256('x'), 't', 0, 0, now() FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_ingest.commands (agency_id, command_id, request_id, command_sha256, topic, kafka_partition, kafka_offset, accepted_at)
SELECT a, 'c-1', 'r-1', sha256('x'), 't', 0, 0, now() FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_ingest.rejections (agency_id, topic, kafka_partition, kafka_offset, code)
SELECT a, 't', 0, 0, 'X' FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_ingest.token_uses (agency_id, use_digest, body_sha256, topic, kafka_partition, kafka_offset, expires_at)
SELECT a, sha256('u'), sha256('x'), 't', 0, 0, now() FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_ingest.refusals (agency_id, minute, refused)
SELECT a, date_trunc('minute', now()), 1 FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_ingest.floods (agency_id, topic, kafka_partition, last_offset, offsets, refused)
SELECT a, 't', 0, 0, '{[0,1)}', 1 FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_audit.tree_heads (agency_id, root) SELECT a, sha256('') FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_audit.nodes (agency_id, level, index, hash)
SELECT a, 0, 0, sha256('x') FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_checkpoint.agenda (shard, agency_id, run_id, due_at)
SELECT 0, a, '00000000-0000-0000-0000-000000000001', now() FROM unnest(ARRAY['nasa', 'loc']) a;
INSERT INTO flux_checkpoint.agencies (agency_id, shard) SELECT a, 0 FROM unnest(ARRAY['nasa', 'loc']) a;
DO $machinery$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['flux_ingest', 'flux_checkpoint', 'flux_audit'] LOOP
        EXECUTE format($rows$
            INSERT INTO %1$I.lanes (topic, kafka_partition, topic_id, next_offset, ledger_floor) VALUES ('t', 0, 'id', 0, 0);
            INSERT INTO %1$I.ledger (topic, kafka_partition, from_offset, to_offset, effects) VALUES ('t', 0, 0, 1, 1);
            INSERT INTO %1$I.ledger_exceptions (topic, kafka_partition, first_offset, last_offset, class)
            VALUES ('t', 0, 0, 0, 'control');
            INSERT INTO %1$I.dead_letters (agency_id, topic, kafka_partition, kafka_offset, sha256, code)
            VALUES ('nasa', 't', 0, 0, sha256('x'), 'X');
            INSERT INTO %1$I.outbox (shard, agency_id, event_id, topic, headers, value)
            VALUES (0, 'nasa', gen_random_uuid(), 't', '[]', 'x');
            INSERT INTO %1$I.outbox_parked (id, shard, agency_id, event_id, topic, headers, value, written_at, code)
            VALUES (99, 0, 'nasa', gen_random_uuid(), 't', '[]', 'x', now(), 'X');
        $rows$, service);
    END LOOP;
END
$machinery$
