-- Faults to sow into the tables of an installation at rest, one at a time, each rolled back afterwards. The name begins
-- with the invariant that must be found broken. Constraints that would refuse a fault are dropped by it first.

-- name: i1_a_hash_row_is_dropped
DELETE FROM flux.checkpoint_hashes WHERE seq = 3;

-- name: i1_a_byte_of_a_hash_is_changed
UPDATE flux.checkpoint_hashes SET hash = set_byte(hash, 5, get_byte(hash, 5) # 1) WHERE seq = 2;

-- name: i1_a_hash_row_names_another_partition
UPDATE flux.checkpoint_hashes SET number = 7 WHERE number = 1;

-- name: i1_a_hash_row_comes_from_a_record_that_was_no_effect
UPDATE flux.checkpoint_hashes h SET kafka_offset = x.first_offset, kafka_partition = x.kafka_partition
  FROM flux_checkpoint.ledger_exceptions x
 WHERE h.seq = 3 AND x.topic = 'flux-internal.progress.v1' AND x.class = 'fenced';

-- name: i1_a_report_left_no_history
DELETE FROM flux.checkpoint_events WHERE type = 'flux.progress.planned.v1' AND agency_id = 'nasa';

-- name: i1_a_byte_of_a_record_in_the_history_is_changed
UPDATE flux.checkpoint_events SET body = set_byte(body, 9, get_byte(body, 9) # 1) WHERE seq = 2;

-- name: i1_history_of_nothing_that_was_read
UPDATE flux.checkpoint_events SET kafka_offset = 900000 WHERE type = 'flux.progress.finished.v1' AND kind = 'gather';

-- name: i1_an_admitted_run_is_dropped
DELETE FROM flux.runs WHERE agency_id = 'nasa';

-- name: i1_a_run_comes_from_another_position
UPDATE flux.runs SET kafka_offset = kafka_offset + 1 WHERE agency_id = 'nasa';

-- name: i1_a_dispatch_is_unheard_of
DELETE FROM flux.checkpoint_events WHERE type = 'item.dispatched' AND kind = 'finalize';

-- name: i1_a_dispatch_never_went_out
UPDATE flux.checkpoint_events SET term = 9 WHERE type = 'item.dispatched' AND kind = 'finalize';

-- name: i1_a_dead_letter_is_dropped
DELETE FROM flux_ingest.dead_letters;

-- name: i1_a_dead_letter_has_another_digest
UPDATE flux_checkpoint.dead_letters SET sha256 = sha256('');

-- name: i1_a_dead_letter_has_another_code
UPDATE flux_ingest.dead_letters SET code = 'NOT_UTF8';

-- name: i1_a_rejection_is_dropped
DELETE FROM flux_ingest.rejections WHERE code = 'REQUEST_CONFLICT';

-- name: i1_a_rejection_has_another_code
UPDATE flux_ingest.rejections SET code = 'REQUEST_CONFLICT' WHERE code <> 'REQUEST_CONFLICT';

-- name: i1_a_flood_is_dropped
DELETE FROM flux_ingest.floods;

-- name: i1_a_flood_has_lost_an_offset
-- It may be the only one: how many refusals a batch brings is the loop's affair.
ALTER TABLE flux_ingest.floods DROP CONSTRAINT floods_offsets_check;
UPDATE flux_ingest.floods SET offsets = offsets - int8multirange(int8range(lower(offsets), lower(offsets) + 1));

-- name: i1_a_flood_takes_another_offset
ALTER TABLE flux_ingest.floods DROP CONSTRAINT floods_check;
UPDATE flux_ingest.floods SET offsets = offsets + int8multirange(int8range(lower(offsets) - 1, lower(offsets)));

-- name: i1_a_flood_counts_one_more
UPDATE flux_ingest.floods SET refused = refused + 1;

-- name: i1_a_flooded_record_was_no_effect
WITH moved AS (
    UPDATE flux_ingest.ledger g SET effects = effects - 1, fenced = fenced + 1 FROM flux_ingest.floods f
     WHERE g.topic = f.topic AND g.kafka_partition = f.kafka_partition AND f.last_offset >= g.from_offset
       AND f.last_offset < g.to_offset RETURNING f.*)
INSERT INTO flux_ingest.ledger_exceptions (topic, kafka_partition, first_offset, last_offset, class)
SELECT topic, kafka_partition, last_offset, last_offset, 'fenced' FROM moved;

-- name: i1_a_command_is_dropped
DELETE FROM flux_ingest.commands WHERE command_id = (SELECT min(command_id) FROM flux_ingest.commands);

-- name: i1_a_lane_is_ahead_of_its_log
WITH moved AS (
    UPDATE flux_checkpoint.lanes SET next_offset = next_offset + 50, controls = controls + 50
     WHERE topic = 'flux-internal.runs.v1' RETURNING *)
INSERT INTO flux_checkpoint.ledger (topic, kafka_partition, from_offset, to_offset, effects, controls)
SELECT topic, kafka_partition, next_offset - 50, next_offset, 0, 50 FROM moved;

-- name: i1_a_lane_reads_another_topic_than_before
UPDATE flux_audit.lanes SET topic_id = 'another';

-- name: i1_an_advance_is_taken_back_and_its_effects_are_not
WITH last AS (
    DELETE FROM flux_checkpoint.ledger g USING flux.checkpoint_hashes h
     WHERE g.topic = 'flux-internal.progress.v1' AND g.kafka_partition = h.kafka_partition
       AND g.to_offset > h.kafka_offset RETURNING g.*)
UPDATE flux_checkpoint.lanes l
   SET next_offset = (SELECT min(from_offset) FROM last), ledger_floor = least(ledger_floor, (SELECT min(from_offset) FROM last))
 WHERE l.topic = 'flux-internal.progress.v1' AND l.kafka_partition = (SELECT min(kafka_partition) FROM last);

-- name: i2_a_lane_was_never_taken
UPDATE flux_checkpoint.lanes SET owner_epoch = 0;

-- name: i2_two_owners_advanced_at_once
UPDATE flux_audit.ledger g SET from_offset = from_offset - 1, controls = controls + 1
 WHERE from_offset > 0 AND NOT EXISTS (SELECT FROM flux_audit.ledger o
                                        WHERE o.topic = g.topic AND o.kafka_partition = g.kafka_partition
                                          AND o.from_offset = g.from_offset - 1);

-- name: i2_two_services_read_one_lane
INSERT INTO flux_ingest.lanes SELECT * FROM flux_checkpoint.lanes;

-- name: i3_a_link_in_the_middle_is_dropped
DELETE FROM flux.checkpoint_hashes WHERE seq = 2;

-- name: i3_a_link_points_elsewhere
UPDATE flux.checkpoint_hashes SET prev = sha256('elsewhere') WHERE seq = 2;

-- name: i3_a_chain_does_not_begin_at_the_plan
UPDATE flux.checkpoint_hashes SET prev = sha256('elsewhere') WHERE seq = 1 AND number = 0;

-- name: i3_a_head_is_not_the_last_hash
UPDATE flux.checkpoints SET chain_head = sha256('elsewhere') WHERE kind = 'extract' AND last_seq = 3;

-- name: i3_an_item_is_behind_its_chain
UPDATE flux.checkpoints SET last_seq = 2 WHERE kind = 'extract' AND last_seq = 3;

-- name: i3_a_slice_is_applied_twice
INSERT INTO flux.checkpoint_hashes SELECT 'national-archives', run_id, kind, number, seq, prev, hash, kafka_partition,
       kafka_offset, applied_at FROM flux.checkpoint_hashes WHERE seq = 3;

-- name: i3_a_cursor_is_not_the_chains
ALTER TABLE flux.checkpoints DROP CONSTRAINT checkpoints_check, DROP CONSTRAINT checkpoints_check1, DROP CONSTRAINT checkpoints_check2;
UPDATE flux.checkpoints SET cursor = cursor - 1 WHERE kind = 'extract' AND last_seq = 3;

-- name: i3_a_count_is_not_the_slices
UPDATE flux.checkpoints SET bytes_out = bytes_out + 1 WHERE kind = 'extract' AND last_seq = 3;

-- name: i3_rejects_are_counted_under_another_code
UPDATE flux.checkpoints SET rejects = '{"OBJECT_EMPTY": 1}' WHERE rejects <> '{}';

-- name: i3_a_partition_is_dropped
DELETE FROM flux.checkpoints WHERE kind = 'extract' AND number = 1 AND agency_id = 'nasa';

-- name: i3_a_range_overlaps_another
UPDATE flux.checkpoints SET first_object = first_object - 1 WHERE kind = 'extract' AND number = 1;

-- name: i3_an_item_is_dropped_and_its_chain_is_not
DELETE FROM flux.checkpoints WHERE kind = 'extract' AND number = 0 AND agency_id = 'nasa';

-- name: i4_the_accepted_request_of_a_run_is_dropped
DELETE FROM flux_ingest.requests WHERE agency_id = 'nasa';

-- name: i4_a_run_has_another_request_id
UPDATE flux.runs SET request_id = 'another' WHERE agency_id = 'nasa';

-- name: i4_a_run_has_another_body
UPDATE flux.runs SET request_sha256 = sha256('another') WHERE agency_id = 'nasa';

-- name: i4_an_accepted_digest_is_not_the_records
UPDATE flux_ingest.requests SET request_sha256 = sha256('another') WHERE agency_id = 'nasa';

-- name: i4_a_request_was_accepted_at_another_position
UPDATE flux_ingest.requests SET kafka_offset = kafka_offset + 1 WHERE agency_id = 'nasa';

-- name: i4_an_acceptance_of_nothing_that_was_written
INSERT INTO flux_ingest.requests
SELECT agency_id, 'another', gen_random_uuid(), request_sha256, topic, kafka_partition, kafka_offset, accepted_at
  FROM flux_ingest.requests WHERE agency_id = 'nasa';

-- name: i5_a_run_changes_its_agency
UPDATE flux.runs SET agency_id = 'library-of-congress' WHERE agency_id = 'nasa';

-- name: i5_items_change_their_agency
UPDATE flux.checkpoints SET agency_id = 'library-of-congress' WHERE agency_id = 'nasa';

-- name: i5_history_changes_its_agency
UPDATE flux.checkpoint_events SET agency_id = 'library-of-congress' WHERE agency_id = 'nasa' AND type = 'run.completed';

-- name: i5_a_hash_row_changes_its_agency
UPDATE flux.checkpoint_hashes SET agency_id = 'library-of-congress' WHERE seq = 3;

-- name: i5_a_request_changes_its_agency
UPDATE flux_ingest.requests SET agency_id = 'library-of-congress', request_id = 'r' WHERE agency_id = 'nasa';

-- name: i5_a_rejection_changes_its_agency
UPDATE flux_ingest.rejections SET agency_id = 'library-of-congress';

-- name: i5_a_flood_changes_its_agency
UPDATE flux_ingest.floods SET agency_id = 'nasa';

-- name: i5_a_dead_letter_changes_its_agency
UPDATE flux_ingest.dead_letters SET agency_id = 'library-of-congress';

-- name: i5_a_token_use_is_another_agencys
INSERT INTO flux_ingest.token_uses
SELECT 'library-of-congress', sha256('x'), request_sha256, topic, kafka_partition, kafka_offset, now()
  FROM flux_ingest.requests WHERE agency_id = 'nasa';

-- name: i5_an_entry_lies_in_another_log
UPDATE flux.audit_log SET agency_id = 'library-of-congress', seq = seq + 1000 WHERE agency_id = 'nasa' AND seq = 2;

-- name: i5_an_event_waits_under_another_agency
INSERT INTO flux_checkpoint.outbox (shard, agency_id, event_id, topic, key, headers, value)
VALUES (0, 'nasa', gen_random_uuid(), 'flux.library-of-congress.run.completions.v1', 'k', '[]', '{"agency_id": "nasa"}');

-- name: i5_a_stranger_has_rows
UPDATE flux_audit.tree_heads SET agency_id = 'nobody' WHERE agency_id = 'nasa';

-- name: i6_a_completed_run_says_failed
UPDATE flux.runs SET state = 'FAILED', cause = 'input', code = 'SOURCE_EMPTY' WHERE state = 'COMPLETED';

-- name: i6_a_completed_run_is_running
ALTER TABLE flux.runs DROP CONSTRAINT runs_check, DROP CONSTRAINT runs_check1;
UPDATE flux.runs SET state = 'RUNNING', terminal_attempt = 0 WHERE state = 'COMPLETED';

-- name: i6_an_attempt_ended_without_a_word
UPDATE flux.runs SET run_attempt = run_attempt + 1, terminal_attempt = terminal_attempt + 1 WHERE state = 'FAILED';

-- name: i6_a_run_failed_for_another_reason
UPDATE flux.runs SET code = 'SOURCE_MISSING' WHERE state = 'FAILED';

-- name: i6_a_run_ended_with_other_counts
UPDATE flux.runs SET bytes_out = bytes_out + 1 WHERE state = 'CANCELLED';

-- name: i6_something_happened_after_the_end
INSERT INTO flux.checkpoint_events (agency_id, run_id, type, source)
SELECT agency_id, run_id, 'run.running', 'dispatcher' FROM flux.runs WHERE state = 'CANCELLED';

-- name: i7_a_leaf_in_the_middle_is_dropped
DELETE FROM flux.audit_log WHERE agency_id = 'nasa' AND seq = 3;

-- name: i7_the_last_leaf_is_dropped
DELETE FROM flux.audit_log a USING flux_audit.tree_heads h
 WHERE a.agency_id = 'nasa' AND h.agency_id = 'nasa' AND a.seq = h.size - 1;

-- name: i7_a_byte_of_an_entry_is_changed
ALTER TABLE flux.audit_log DROP CONSTRAINT audit_log_check;
UPDATE flux.audit_log SET entry = set_byte(entry, 40, get_byte(entry, 40) # 1) WHERE agency_id = 'nasa' AND seq = 1;

-- name: i7_an_entry_is_rewritten_with_its_hash
UPDATE flux.audit_log SET entry = x.entry, leaf_hash = sha256('\x00'::bytea || x.entry)
  FROM (SELECT convert_to(replace(convert_from(entry, 'UTF8'), '"refused"', '"ok"'), 'UTF8') AS entry, seq AS place
          FROM flux.audit_log WHERE agency_id = 'nasa' AND convert_from(entry, 'UTF8') LIKE '%"refused"%' LIMIT 1) x
 WHERE agency_id = 'nasa' AND seq = x.place;

-- name: i7_two_leaves_change_places
UPDATE flux.audit_log SET seq = seq + 1000 WHERE agency_id = 'nasa' AND seq IN (1, 2);
UPDATE flux.audit_log SET seq = 1003 - seq WHERE agency_id = 'nasa' AND seq IN (1001, 1002);

-- name: i7_a_fact_is_sealed_twice
ALTER TABLE flux.audit_log DROP CONSTRAINT audit_log_agency_id_event_id_key;
INSERT INTO flux.audit_log
SELECT a.agency_id, h.size, a.event_id, a.entry, a.leaf_hash, a.receipt_for, a.kafka_partition, a.kafka_offset, a.sealed_at
  FROM flux.audit_log a JOIN flux_audit.tree_heads h USING (agency_id) WHERE a.agency_id = 'nasa' AND a.seq = 0;

-- name: i7_a_head_counts_one_leaf_more
UPDATE flux_audit.tree_heads SET size = size + 1 WHERE agency_id = 'nasa';

-- name: i7_a_root_is_another
UPDATE flux_audit.tree_heads SET root = sha256('another') WHERE agency_id = 'nasa';

-- name: i7_a_frontier_is_another
UPDATE flux_audit.tree_heads SET frontier[1] = sha256('another') WHERE agency_id = 'nasa';

-- name: i7_a_stored_node_is_another
UPDATE flux_audit.nodes SET hash = sha256('another') WHERE agency_id = 'nasa' AND level = 1 AND index = 0;

-- name: i7_a_stored_node_is_dropped
DELETE FROM flux_audit.nodes WHERE agency_id = 'nasa' AND level = 2;

-- name: i7_a_signed_head_is_another_agencys
UPDATE flux_audit.tree_heads SET signed_head = (SELECT signed_head FROM flux_audit.tree_heads WHERE agency_id = 'library-of-congress')
 WHERE agency_id = 'nasa';

-- name: i7_a_byte_of_a_signature_is_changed
UPDATE flux_audit.tree_heads
   SET signed_head = overlay(signed_head PLACING CASE substr(signed_head, length(signed_head) - 20, 1) WHEN 'A' THEN 'B' ELSE 'A' END
                             FROM length(signed_head) - 20 FOR 1)
 WHERE agency_id = 'nasa';

-- name: i7_a_database_forgot_what_it_signed
UPDATE flux_audit.tree_heads SET signed_size = 0, signed_head = NULL;

-- name: i7_a_receipt_is_not_wanted_any_more
UPDATE flux.audit_log SET receipt_for = NULL WHERE agency_id = 'nasa';

-- name: i7_a_fact_was_booked_as_a_repetition
WITH leaf AS (DELETE FROM flux.audit_log a USING flux_audit.tree_heads h
 WHERE a.agency_id = 'nasa' AND h.agency_id = 'nasa' AND a.seq = h.size - 1 RETURNING a.*)
INSERT INTO flux_audit.ledger_exceptions (topic, kafka_partition, first_offset, last_offset, class)
SELECT 'flux-internal.audit.v1', kafka_partition, kafka_offset, kafka_offset, 'duplicate' FROM leaf;

-- name: i8_an_advance_is_not_booked
DELETE FROM flux_checkpoint.ledger WHERE topic = 'flux-internal.progress.v1' AND from_offset = 0;

-- name: i8_a_lane_moved_without_a_booking
UPDATE flux_checkpoint.lanes SET next_offset = next_offset + 1 WHERE topic = 'flux-internal.progress.v1';

-- name: i8_a_lane_moved_back
UPDATE flux_audit.lanes SET next_offset = next_offset - 1 WHERE next_offset > ledger_floor;

-- name: i8_an_exception_is_dropped
DELETE FROM flux_checkpoint.ledger_exceptions WHERE class = 'fenced';

-- name: i8_an_exception_covers_an_effect_too
UPDATE flux_checkpoint.ledger_exceptions SET last_offset = last_offset + 1 WHERE class = 'dead_letter';

-- name: i8_an_exception_has_another_class
UPDATE flux_checkpoint.ledger_exceptions SET class = 'fenced' WHERE class = 'dead_letter';

-- name: i8_a_record_is_booked_as_control
UPDATE flux_checkpoint.ledger_exceptions SET class = 'control' WHERE class = 'dead_letter';
UPDATE flux_checkpoint.ledger g SET dead_letters = dead_letters - 1, controls = controls + 1 WHERE dead_letters > 0;
UPDATE flux_checkpoint.lanes SET controls = controls + 1
 WHERE topic = 'flux-internal.progress.v1'
   AND kafka_partition = (SELECT kafka_partition FROM flux_checkpoint.dead_letters);

-- name: i8_a_marker_is_booked_as_an_effect
DELETE FROM flux_checkpoint.ledger_exceptions WHERE class = 'control' AND topic = 'flux-internal.runs.v1';
UPDATE flux_checkpoint.ledger SET effects = effects + controls, controls = 0 WHERE topic = 'flux-internal.runs.v1';
UPDATE flux_checkpoint.lanes SET controls = 0 WHERE topic = 'flux-internal.runs.v1';

-- name: i8_a_class_is_miscounted
ALTER TABLE flux_checkpoint.ledger DROP CONSTRAINT ledger_check1;
UPDATE flux_checkpoint.ledger SET effects = effects + 1 WHERE effects > 0;

-- name: i8_controls_are_miscounted
UPDATE flux_checkpoint.lanes SET controls = controls + 1;

-- name: i8_accounts_without_a_lane
DELETE FROM flux_checkpoint.lanes WHERE topic = 'flux-internal.progress.v1';

-- name: i9_a_partition_of_a_completed_run_is_dropped
DELETE FROM flux.checkpoint_hashes WHERE number = 1;
DELETE FROM flux.checkpoints WHERE kind = 'extract' AND number = 1 AND agency_id = 'nasa';

-- name: i9_a_partition_of_a_completed_run_is_not_finished
UPDATE flux.checkpoints SET state = 'RUNNING' WHERE kind = 'extract' AND number = 1 AND agency_id = 'nasa';

-- name: i9_a_completed_run_counts_otherwise
UPDATE flux.runs SET written = written - 1, rejected = rejected + 1 WHERE state = 'COMPLETED';

-- name: i9_a_completed_run_read_less_than_its_plan
ALTER TABLE flux.runs DROP CONSTRAINT runs_check3;
UPDATE flux.runs SET objects = objects + 1 WHERE state = 'COMPLETED';

-- name: i9_read_is_not_written_and_rejected
ALTER TABLE flux.checkpoints DROP CONSTRAINT checkpoints_check;
UPDATE flux.checkpoints SET written = written + 1 WHERE kind = 'extract' AND number = 1 AND agency_id = 'nasa';

-- name: i9_a_plan_is_another
UPDATE flux.runs SET plan_digest = sha256('another') WHERE state = 'COMPLETED';

-- name: i9_a_manifest_is_another
UPDATE flux.runs SET manifest_digest = sha256('another') WHERE state = 'COMPLETED';

-- name: i9_a_gather_step_is_dropped
DELETE FROM flux.checkpoints WHERE kind = 'gather';

-- name: outbox_an_event_waits
INSERT INTO flux_audit.outbox (shard, agency_id, event_id, topic, key, headers, value)
VALUES (0, 'nasa', gen_random_uuid(), 'flux-internal.fences.v1', 'k', '[]', '{"agency_id": "nasa"}');

-- name: outbox_an_event_is_parked
INSERT INTO flux_audit.outbox_parked (id, shard, agency_id, event_id, topic, key, headers, value, written_at, code)
VALUES (9, 0, 'nasa', gen_random_uuid(), 'flux-internal.fences.v1', 'k', '[]', '{"agency_id": "nasa"}', now(), 'TOPIC_MISSING');

-- name: outbox_the_cursor_passed_an_event
INSERT INTO flux_checkpoint.outbox (shard, agency_id, number, event_id, topic, key, headers, value)
SELECT shard, 'nasa', last_cursor, gen_random_uuid(), 'flux-internal.fences.v1', 'k', '[]', '{"agency_id": "nasa"}'
  FROM flux_checkpoint.relay_leases WHERE last_cursor > 0;

-- name: outbox_the_database_is_ahead_of_the_cursor
UPDATE flux_checkpoint.relay_leases SET relay_counter = relay_counter + 5, last_cursor = last_cursor + 5;

-- name: outbox_the_database_is_behind_the_cursor
UPDATE flux_checkpoint.relay_leases SET relay_counter = 0, last_cursor = 0;

-- name: settled_a_lane_has_not_read_to_its_end
DELETE FROM flux_checkpoint.ledger WHERE topic = 'flux-internal.runs.v1';
DELETE FROM flux_checkpoint.ledger_exceptions WHERE topic = 'flux-internal.runs.v1';
UPDATE flux_checkpoint.lanes SET next_offset = ledger_floor, controls = 0 WHERE topic = 'flux-internal.runs.v1';

-- name: settled_leaves_are_not_signed
UPDATE flux_audit.tree_heads SET signed_size = signed_size - 1 WHERE signed_size > 1;
