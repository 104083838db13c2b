-- Expiry and retry may meet at one run: what expires is locked first and judged again under the lock; a run that somebody
-- works on waits for the next time. Functions are for whom they are granted to, from their first moment.
SET LOCAL lock_timeout = '5s';

ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE OR REPLACE FUNCTION flux.expire_runs(p_agency_id text, p_now timestamptz, p_rows integer)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    WITH doomed AS MATERIALIZED (
        SELECT r.agency_id, r.run_id
          FROM flux.runs r
         WHERE r.agency_id = p_agency_id AND r.expires_at <= p_now AND r.state IN ('COMPLETED', 'CANCELLED', 'FAILED')
         ORDER BY r.expires_at LIMIT p_rows
           FOR UPDATE SKIP LOCKED),
    hashes AS (
        DELETE FROM flux.checkpoint_hashes h USING doomed d
         WHERE h.agency_id = d.agency_id AND h.run_id = d.run_id RETURNING 1),
    gone AS (
        DELETE FROM flux.runs r USING doomed d
         WHERE r.agency_id = d.agency_id AND r.run_id = d.run_id RETURNING 1)
    SELECT count(*) FROM gone;
END;
