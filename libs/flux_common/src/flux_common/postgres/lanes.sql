-- name: take
-- Waits on the row lock until an old owner's commit is settled, so what it returns is final.
UPDATE lanes SET owner_epoch = owner_epoch + 1, changed_at = now()
 WHERE topic = $1 AND kafka_partition = $2
RETURNING topic_id, owner_epoch, next_offset

-- name: create
-- A lane that nobody knew begins at the log start; its ledger too.
INSERT INTO lanes (topic, kafka_partition, topic_id, owner_epoch, next_offset, ledger_floor)
VALUES ($1, $2, $3, 1, $4, $4)
ON CONFLICT DO NOTHING
RETURNING topic_id, owner_epoch, next_offset

-- name: advance
-- First statement of every Advance: a stale owner touches nothing else.
UPDATE lanes
   SET next_offset = $4, controls = controls + $6, watermark = greatest(watermark, coalesce($7, watermark)),
       changed_at = now()
 WHERE topic = $1 AND kafka_partition = $2 AND next_offset = $3 AND owner_epoch = $5
RETURNING now()

-- name: idle
-- At the end of the lane and polled lately: silence up to five seconds ago is real silence.
UPDATE lanes
   SET next_offset = $4, controls = controls + $6,
       watermark = CASE WHEN $7 THEN greatest(watermark, now() - interval '5 seconds') ELSE watermark END,
       changed_at = now()
 WHERE topic = $1 AND kafka_partition = $2 AND next_offset = $3 AND owner_epoch = $5
RETURNING now()

-- name: book
INSERT INTO ledger (topic, kafka_partition, from_offset, to_offset, effects, duplicates, fenced, dead_letters, controls, lost)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: book_exceptions
INSERT INTO ledger_exceptions (topic, kafka_partition, first_offset, last_offset, class, code, ref)
SELECT $1, $2, x.first_offset, x.last_offset, x.class, x.code, x.ref
  FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[])
       AS x (first_offset, last_offset, class, code, ref)

-- name: lock
SELECT topic_id, next_offset FROM lanes WHERE topic = $1 AND kafka_partition = $2 FOR UPDATE

-- name: lose
-- An operator's act: what is lost is booked as lost, and the lane goes on behind it under a new epoch.
UPDATE lanes SET next_offset = $3, owner_epoch = owner_epoch + 1, changed_at = now()
 WHERE topic = $1 AND kafka_partition = $2
