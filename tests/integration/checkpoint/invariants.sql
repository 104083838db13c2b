-- name: i3_chains
-- I3: (run, partition, seq) is gap-free from 1, each link names the one before, the head and the record's bytes agree.
SELECT r.run_id, v.number, v.fault
  FROM flux.runs r CROSS JOIN LATERAL flux.verify_chain(r.agency_id, r.run_id) v
 WHERE v.fault IS NOT NULL

-- name: i6_ends
-- I6: what is final has spoken once for its attempt, and has nothing in hand and nothing on the agenda.
SELECT r.run_id, r.state, r.run_attempt, r.terminal_attempt
  FROM flux.runs r
 WHERE (r.state IN ('COMPLETED', 'CANCELLED', 'FAILED')) <> (r.terminal_attempt = r.run_attempt)
    OR (r.state IN ('COMPLETED', 'CANCELLED', 'FAILED')
        AND (EXISTS (SELECT FROM flux.checkpoints c WHERE c.agency_id = r.agency_id AND c.run_id = r.run_id
                        AND c.state IN ('DISPATCHED', 'RUNNING'))
             OR EXISTS (SELECT FROM agenda a WHERE a.agency_id = r.agency_id AND a.run_id = r.run_id)))
    OR (r.state NOT IN ('COMPLETED', 'CANCELLED', 'FAILED')
        AND NOT EXISTS (SELECT FROM agenda a WHERE a.agency_id = r.agency_id AND a.run_id = r.run_id))

-- name: i8_ledger
-- I8: from the floor to next_offset each offset is in one ledger row, and the exceptions are as many as the rows say.
SELECT l.topic, l.ledger_floor, l.next_offset, b.covered, b.exceptions, e.exceptions AS booked
  FROM lanes l
  CROSS JOIN LATERAL (
      SELECT coalesce(sum(to_offset - from_offset), 0) AS covered,
             coalesce(sum(duplicates + fenced + dead_letters + controls + lost), 0) AS exceptions
        FROM ledger x WHERE x.topic = l.topic AND x.kafka_partition = l.kafka_partition) b
  CROSS JOIN LATERAL (
      SELECT coalesce(sum(last_offset - first_offset + 1), 0) AS exceptions
        FROM ledger_exceptions x WHERE x.topic = l.topic AND x.kafka_partition = l.kafka_partition) e
 WHERE b.covered <> l.next_offset - l.ledger_floor OR b.exceptions <> e.exceptions

-- name: i9_counts
-- I9: read = written + rejected everywhere; a completed run has every partition at its end, and their sum is the plan.
SELECT r.run_id, r.state, t.items, t.read, t.written, t.rejected
  FROM flux.runs r
  CROSS JOIN LATERAL (
      SELECT count(*) AS items, count(*) FILTER (WHERE c.state = 'FINISHED' AND c.cursor = c.object_count) AS finished,
             coalesce(sum(c.read), 0) AS read, coalesce(sum(c.written), 0) AS written,
             coalesce(sum(c.rejected), 0) AS rejected
        FROM flux.checkpoints c
       WHERE c.agency_id = r.agency_id AND c.run_id = r.run_id AND c.kind = 'extract') t
 WHERE t.read <> t.written + t.rejected
    OR (r.state = 'COMPLETED' AND (t.items <> r.partitions OR t.finished <> r.partitions OR t.read <> r.objects
                                   OR r.read <> t.read OR r.written <> t.written OR r.rejected <> t.rejected))

-- name: windows
-- No run holds more than its window, no agency more than its own.
SELECT r.agency_id, r.run_id, h.mine, h.ours
  FROM flux.runs r
  CROSS JOIN LATERAL (
      SELECT count(*) FILTER (WHERE c.run_id = r.run_id) AS mine, count(*) AS ours
        FROM flux.checkpoints c
       WHERE c.agency_id = r.agency_id AND c.kind = 'extract' AND c.state IN ('DISPATCHED', 'RUNNING')) h
 WHERE h.mine > r.run_window OR h.ours > r.agency_window
