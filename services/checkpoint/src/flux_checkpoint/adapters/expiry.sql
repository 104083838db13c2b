-- name: agencies
-- Every agency that ever had a run.
SELECT agency_id FROM agencies ORDER BY agency_id

-- name: begin
-- One process at a time lets an agency's rows expire; another one finds nothing to do. The time names the step.
SELECT now() AS now WHERE pg_try_advisory_xact_lock(hashtextextended('flux_checkpoint/expiry/' || $1, 0))

-- name: expire_events
SELECT flux.expire_events($1, now() - $2::interval, $3)

-- name: expire_runs
SELECT flux.expire_runs($1, now(), $2)
