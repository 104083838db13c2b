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
-- Said in two halves, for each has an index.
SELECT EXISTS (SELECT FROM outbox WHERE shard = $1 AND number IS NULL)
    OR EXISTS (SELECT FROM outbox WHERE shard = $1 AND number IS NOT NULL)

-- name: standing
-- What stands before a round: topics with parked rows (from one to the next by the index, however many rows each has), and
-- how many rows are numbered and not sent.
WITH RECURSIVE parked AS (
    (SELECT topic FROM outbox_parked WHERE shard = $1 ORDER BY topic LIMIT 1)
    UNION ALL
    SELECT (SELECT p.topic FROM outbox_parked p WHERE p.shard = $1 AND p.topic > parked.topic ORDER BY p.topic LIMIT 1)
      FROM parked WHERE parked.topic IS NOT NULL)
SELECT ARRAY(SELECT topic FROM parked WHERE topic IS NOT NULL) AS parked,
       (SELECT count(*) FROM outbox WHERE shard = $1 AND number IS NOT NULL) AS numbered

-- name: park_followers
-- While a topic has parked rows its new rows are parked behind them: order per topic holds. Whoever calls holds the lease's
-- lock, so $2 stays true; what is not parked this time is not numbered either.
WITH moved AS (
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox WHERE shard = $1 AND number IS NULL AND topic = ANY ($2::text[]) ORDER BY id LIMIT $3)
    RETURNING *)
INSERT INTO outbox_parked (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, code)
SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at, 'TOPIC_PARKED' FROM moved

-- name: number
-- Identity columns commit out of order; numbering what is visible, here, cannot skip a row. What became visible after its
-- topic's rows were parked waits for the next round, when it is parked behind them.
WITH todo AS (
    SELECT id, row_number() OVER (ORDER BY id) AS place
      FROM (SELECT id FROM outbox WHERE shard = $1 AND number IS NULL AND topic <> ALL ($2::text[])
             ORDER BY id LIMIT $3) AS oldest),
numbered AS (
    UPDATE outbox o SET number = (SELECT relay_counter FROM relay_leases WHERE shard = $1) + t.place
      FROM todo t WHERE o.id = t.id RETURNING o.number)
SELECT max(number) FROM numbered

-- name: move_counter
UPDATE relay_leases SET relay_counter = $3 WHERE shard = $1 AND term = $2 AND relay_counter < $3

-- name: unpublished
-- At most $3 rows and $4 bytes of values, yet always the first row; only what is sent is read.
SELECT id, number, agency_id, event_id, topic, kafka_partition, key, headers, value
  FROM (SELECT o.*, sum(length(o.value)) OVER in_order AS bytes, row_number() OVER in_order AS place
          FROM (SELECT * FROM outbox WHERE shard = $1 AND number > $2 ORDER BY number LIMIT $3) AS o
        WINDOW in_order AS (ORDER BY o.number)) AS next
 WHERE bytes <= $4 OR place = 1
 ORDER BY number

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

-- name: lock_shard
-- An operator's act waits for the relay's, and the relay's for it.
SELECT shard FROM relay_leases WHERE shard = $1 FOR UPDATE

-- name: release_parked
-- Back in their old order: the old id keeps it. So many at a time, within a statement's time.
WITH moved AS (
    DELETE FROM outbox_parked WHERE id IN (
        SELECT id FROM outbox_parked WHERE shard = $1 AND topic = $2 ORDER BY id LIMIT $3)
    RETURNING *),
released AS (
    INSERT INTO outbox (id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at)
    OVERRIDING SYSTEM VALUE
    SELECT id, shard, agency_id, event_id, topic, kafka_partition, key, headers, value, written_at FROM moved ORDER BY id
    RETURNING 1)
SELECT count(*) FROM released

-- name: backlog
-- One row for each shard, whatever waits in it. What is parked has no bound, so it is counted up to one.
SELECT l.shard, coalesce(w.rows, 0) AS rows, coalesce(w.bytes, 0) AS bytes,
       (SELECT count(*) FROM (SELECT FROM outbox_parked p WHERE p.shard = l.shard LIMIT 100000) AS counted) AS parked,
       coalesce(extract(epoch FROM now() - w.oldest), 0)::float8 AS oldest_age
  FROM relay_leases l
  LEFT JOIN (SELECT shard, count(*) AS rows, sum(octet_length(value)) AS bytes, min(written_at) AS oldest
               FROM outbox GROUP BY shard) w USING (shard)
