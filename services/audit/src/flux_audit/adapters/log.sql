-- name: hold_lane
-- Our epoch and the row's lock are what an Advance has; signing moves nothing in the lane, so its offset is not compared.
SELECT now() AS now, next_offset, nullif(watermark, '-infinity'::timestamptz) AS watermark
  FROM lanes
 WHERE topic = $1 AND kafka_partition = $2 AND owner_epoch = $3
   FOR UPDATE

-- name: open
-- A head row must be there before it can be locked; without one two writers would both begin at leaf 0.
INSERT INTO tree_heads (agency_id, root)
SELECT x.agency_id, $2 FROM unnest($1::text[]) AS x (agency_id) ORDER BY x.agency_id COLLATE "C"
ON CONFLICT DO NOTHING

-- name: lock
-- The one place where a log's next leaf is known for sure; sorted, so that two lanes never wait for each other in a ring.
SELECT t.agency_id, t.size, t.frontier, t.signed_size
  FROM tree_heads t
 WHERE t.agency_id = ANY ($1::text[])
 ORDER BY t.agency_id COLLATE "C"
   FOR UPDATE

-- name: find
SELECT l.agency_id, l.event_id, l.seq, l.leaf_hash
  FROM unnest($1::text[], $2::uuid[]) AS x (agency_id, event_id)
  JOIN flux.audit_log l ON l.agency_id = x.agency_id AND l.event_id = x.event_id

-- name: add_leaves
INSERT INTO flux.audit_log (agency_id, seq, event_id, entry, leaf_hash, receipt_for, kafka_partition, kafka_offset)
SELECT x.agency_id, x.seq, x.event_id, x.entry, x.leaf_hash, x.receipt_for, x.kafka_partition, x.kafka_offset
  FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[], $6::uuid[], $7::integer[], $8::bigint[])
       AS x (agency_id, seq, event_id, entry, leaf_hash, receipt_for, kafka_partition, kafka_offset)

-- name: add_nodes
INSERT INTO nodes (agency_id, level, index, hash)
SELECT x.agency_id, x.level, x.index, x.hash
  FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::bytea[]) AS x (agency_id, level, index, hash)

-- name: grow
-- The frontier comes as one string of 32-byte hashes: arrays of different lengths do not unnest.
UPDATE tree_heads t
   SET size = x.size, root = x.root, changed_at = now(),
       frontier = ARRAY(SELECT substr(x.frontier, 32 * n + 1, 32)
                          FROM generate_series(0, length(x.frontier) / 32 - 1) AS n ORDER BY n)
  FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[])
       AS x (agency_id, old_size, size, frontier, root)
 WHERE t.agency_id = x.agency_id AND t.size = x.old_size
RETURNING t.agency_id

-- name: nodes
SELECT n.agency_id, n.level, n.index, n.hash
  FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS x (agency_id, level, index)
  JOIN nodes n ON n.agency_id = x.agency_id AND n.level = x.level AND n.index = x.index

-- name: publish
UPDATE tree_heads t
   SET signed_size = x.size, signed_head = x.note
  FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) AS x (agency_id, old_size, size, note)
 WHERE t.agency_id = x.agency_id AND t.signed_size = x.old_size
RETURNING t.agency_id

-- name: wanted
-- From the last signed size on, so none is forgotten whatever happened between.
SELECT l.agency_id, l.seq, l.receipt_for, l.entry
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS x (agency_id, low, high)
  JOIN flux.audit_log l ON l.agency_id = x.agency_id AND l.seq >= x.low AND l.seq < x.high
 WHERE l.receipt_for IS NOT NULL
 ORDER BY l.agency_id COLLATE "C", l.seq
