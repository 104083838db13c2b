-- Holding a table against writers, and what is seen meanwhile; an administrator's statements.

-- name: hold_checkpoints
-- Waits for who writes just now; who comes later waits behind.
LOCK TABLE flux.checkpoints IN SHARE MODE

-- name: hold_requests
-- Ingest decides by writing here.
LOCK TABLE flux_ingest.requests IN SHARE MODE

-- name: waiting
-- Whether a login's session waits for a lock.
SELECT EXISTS (
    SELECT FROM pg_stat_activity
     WHERE datname = current_database() AND usename = $1 AND wait_event_type = 'Lock')

-- name: look_anew
-- A transaction sees other sessions as at its first look, until it is told to forget that.
SELECT pg_stat_clear_snapshot()

-- name: progress
-- What was read of a run is the sum over its partitions.
SELECT r.state, r.objects, coalesce(sum(c.read), 0)::bigint AS read
  FROM flux.runs r
  LEFT JOIN flux.checkpoints c ON c.agency_id = r.agency_id AND c.run_id = r.run_id AND c.kind = 'extract'
 WHERE r.run_id = $1
 GROUP BY r.agency_id, r.run_id
