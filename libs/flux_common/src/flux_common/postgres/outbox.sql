-- name: insert
-- Insert order is leave order for an agency: whoever writes events of a key has locked the same row first.
INSERT INTO outbox (shard, agency_id, event_id, topic, kafka_partition, key, headers, value)
SELECT x.shard, x.agency_id, x.event_id, x.topic, x.kafka_partition, x.key, x.headers, x.value
  FROM unnest($1::smallint[], $2::text[], $3::uuid[], $4::text[], $5::integer[], $6::text[], $7::jsonb[], $8::bytea[])
       WITH ORDINALITY AS x (shard, agency_id, event_id, topic, kafka_partition, key, headers, value, place)
 ORDER BY x.place

-- name: insert_dead_letters
INSERT INTO dead_letters (agency_id, topic, kafka_partition, kafka_offset, sha256, code)
SELECT x.agency_id, x.topic, x.kafka_partition, x.kafka_offset, x.sha256, x.code
  FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::bytea[], $6::text[])
       AS x (agency_id, topic, kafka_partition, kafka_offset, sha256, code)

-- name: acquire_lease
UPDATE relay_leases SET holder = $2, term = term + 1, expires_at = now() + make_interval(secs => $3)
 WHERE shard = $1 AND (expires_at < now() OR holder = $2)
RETURNING term, relay_counter, last_cursor

-- name: release_lease
UPDATE relay_leases SET expires_at = '-infinity' WHERE shard = $1 AND term = $2

-- name: lock_lease
-- Everything the relay writes happens under the row lock of its lease and its own term.
UPDATE relay_leases SET expires_at = now() + make_interval(secs => $3) WHERE shard = $1 AND term = $2
RETURNING relay_counter, last_cursor

-- name: anything
SELECT EXISTS (SELECT FROM outbox WHERE shard = $1)

-- name: park_followers
-- While a topic has parked rows its new rows are parked behind them: order per topic holds.
WITH blocked AS (SELECT DISTINCT topic FROM outbox_parked WHERE shard = $1),
moved AS (
    DELETE FROM outbox o USING blocked b WHERE o.shard = $1 AND o.number IS NULL AND o.topic = b.topic RETURNING o.*)
INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, code)
SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, 'TOPIC_PARKED' FROM moved

-- name: number
-- Identity columns commit out of order; numbering what is visible, here, cannot skip a row.
WITH todo AS (
    SELECT id, row_number() OVER (ORDER BY id) AS place
      FROM (SELECT id FROM outbox WHERE shard = $1 AND number IS NULL ORDER BY id LIMIT $2) AS oldest),
numbered AS (
    UPDATE outbox o SET number = (SELECT relay_counter FROM relay_leases WHERE shard = $1) + t.place
      FROM todo t WHERE o.id = t.id RETURNING o.number)
SELECT max(number) FROM numbered

-- name: move_counter
UPDATE relay_leases SET relay_counter = $3 WHERE shard = $1 AND term = $2 AND relay_counter < $3

-- name: unpublished
SELECT id, number, agency_id, event_id, topic, kafka_partition, key, headers, value
  FROM outbox WHERE shard = $1 AND number > $2 ORDER BY number LIMIT $3

-- name: park
WITH moved AS (DELETE FROM outbox WHERE shard = $1 AND id = $2 RETURNING *)
INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, code)
SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, $3 FROM moved

-- name: park_numbered_followers
-- A refused row's later companions on its topic follow it.
WITH moved AS (
    DELETE FROM outbox WHERE shard = $1 AND topic = $2 AND number > $3 RETURNING *)
INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, code)
SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, 'TOPIC_PARKED' FROM moved

-- name: clear
WITH gone AS (DELETE FROM outbox WHERE shard = $1 AND number <= $2 RETURNING 1)
SELECT count(*) FROM gone

-- name: move_cursor
UPDATE relay_leases SET last_cursor = $3 WHERE shard = $1 AND term = $2 AND last_cursor < $3

-- name: release_parked
-- An operator's act, under the lease row's lock: back in their old order (the old id keeps it).
WITH lease AS (SELECT shard FROM relay_leases WHERE shard = $1 FOR UPDATE),
moved AS (DELETE FROM outbox_parked p USING lease l WHERE p.shard = l.shard AND p.topic = $2 RETURNING p.*)
INSERT INTO outbox (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at)
OVERRIDING SYSTEM VALUE
SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at FROM moved ORDER BY id

-- name: oldest_age
SELECT coalesce(extract(epoch FROM now() - min(written_at)), 0)::float8 FROM outbox

-- name: notify
NOTIFY flux_outbox
