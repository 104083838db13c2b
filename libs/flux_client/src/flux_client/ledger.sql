-- What became of one offset, as the consuming service booked it. Runs as that service's role, whose search_path names
-- its own schema; lanes belong to no agency.

-- name: lane
SELECT topic_id, next_offset, ledger_floor, watermark FROM lanes WHERE topic = $1 AND kafka_partition = $2

-- name: exception
-- A position without an exception row is an effect.
SELECT class, code, ref FROM ledger_exceptions
 WHERE topic = $1 AND kafka_partition = $2 AND first_offset <= $3 AND last_offset >= $3
 ORDER BY first_offset DESC LIMIT 1

-- name: lanes
SELECT topic, kafka_partition, topic_id, next_offset, nullif(watermark, '-infinity') AS watermark FROM lanes ORDER BY topic, kafka_partition

-- name: parked
SELECT topic, code, count(*) AS events, min(parked_at) AS since FROM outbox_parked GROUP BY topic, code ORDER BY topic, code
