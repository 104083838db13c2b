-- What is asked of the five tables often enough to have a name. All run as their caller, under row-level security.
SET LOCAL lock_timeout = '5s';

CREATE FUNCTION flux.run_summary(p_agency_id text, p_run_id uuid)
RETURNS TABLE (run_id uuid, request_id text, state text, run_attempt integer, cause text, code text, objects bigint,
               partitions integer, partitions_finished bigint, read bigint, written bigint, rejected bigint,
               bytes_in bigint, bytes_out bigint, rejects jsonb, manifest_uri text, admitted_at timestamptz,
               ended_at timestamptz)
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    SELECT r.run_id, r.request_id, r.state, r.run_attempt, r.cause, r.code, r.objects, r.partitions,
           (SELECT count(*) FROM flux.checkpoints c
             WHERE c.agency_id = r.agency_id AND c.run_id = r.run_id AND c.kind = 'extract' AND c.state = 'FINISHED'),
           totals.read, totals.written, totals.rejected, totals.bytes_in, totals.bytes_out,
           (SELECT coalesce(jsonb_object_agg(by_code.key, by_code.total), '{}')
              FROM (SELECT e.key, sum(e.value::bigint) AS total
                      FROM flux.checkpoints c CROSS JOIN LATERAL jsonb_each_text(c.rejects) e
                     WHERE c.agency_id = r.agency_id AND c.run_id = r.run_id AND c.kind = 'extract'
                     GROUP BY e.key) by_code),
           r.manifest_uri, r.admitted_at, r.ended_at
      FROM flux.runs r
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(c.read), 0)::bigint AS read, coalesce(sum(c.written), 0)::bigint AS written,
                 coalesce(sum(c.rejected), 0)::bigint AS rejected, coalesce(sum(c.bytes_in), 0)::bigint AS bytes_in,
                 coalesce(sum(c.bytes_out), 0)::bigint AS bytes_out
            FROM flux.checkpoints c
           WHERE c.agency_id = r.agency_id AND c.run_id = r.run_id AND c.kind = 'extract') totals
     WHERE r.agency_id = p_agency_id AND r.run_id = p_run_id;
END;
COMMENT ON FUNCTION flux.run_summary IS 'State, counts and rejects by code of one run, summed over its partitions as they stand now.';

CREATE FUNCTION flux.verify_chain(p_agency_id text, p_run_id uuid)
RETURNS TABLE (number integer, slices bigint, head bytea, fault text)
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    SELECT c.number, count(h.seq), c.chain_head,
           CASE
               WHEN count(h.seq) <> c.last_seq THEN 'rows missing'
               WHEN bool_or(h.prev <> coalesce(h.before, r.plan_digest)) THEN 'link broken'
               WHEN bool_or(h.seq <> h.place) THEN 'gap'
               WHEN bool_or(h.body_hash <> h.hash) THEN 'record changed'
               WHEN c.last_seq > 0
                    AND (array_agg(h.hash ORDER BY h.seq DESC))[1] IS DISTINCT FROM c.chain_head THEN 'head differs'
           END
      FROM flux.runs r
      JOIN flux.checkpoints c ON c.agency_id = r.agency_id AND c.run_id = r.run_id AND c.kind = 'extract'
      LEFT JOIN LATERAL (
          SELECT x.seq, x.prev, x.hash, sha256(e.body) AS body_hash,
                 lag(x.hash) OVER (ORDER BY x.seq) AS before, row_number() OVER (ORDER BY x.seq) AS place
            FROM flux.checkpoint_hashes x
            LEFT JOIN flux.checkpoint_events e
              ON e.agency_id = x.agency_id AND e.source = 'progress' AND e.kafka_partition = x.kafka_partition
             AND e.kafka_offset = x.kafka_offset
           WHERE x.agency_id = c.agency_id AND x.run_id = c.run_id AND x.kind = 'extract' AND x.number = c.number) h ON true
     WHERE r.agency_id = p_agency_id AND r.run_id = p_run_id
     GROUP BY c.number, c.chain_head, c.last_seq, r.plan_digest
     ORDER BY c.number;
END;
COMMENT ON FUNCTION flux.verify_chain IS
    'Recomputes each partition''s record chain from the stored digests (and records, while they are kept). fault is null where it holds.';

CREATE FUNCTION flux.explain_position(p_agency_id text, p_source text, p_kafka_partition integer, p_kafka_offset bigint)
RETURNS TABLE (type text, run_id uuid, kind text, number integer, term integer, seq integer, happened_at timestamptz)
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    SELECT e.type, e.run_id, e.kind, e.number, e.term, e.seq, e.happened_at
      FROM flux.checkpoint_events e
     WHERE e.agency_id = p_agency_id AND e.source = p_source AND e.kafka_partition = p_kafka_partition
       AND e.kafka_offset = p_kafka_offset;
END;
COMMENT ON FUNCTION flux.explain_position IS 'The effect that a record of the runs or progress topic had, by its position.';

CREATE FUNCTION flux.expire_events(p_agency_id text, p_before timestamptz, p_rows integer)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    WITH doomed AS (
        SELECT e.agency_id, e.event_no
          FROM flux.checkpoint_events e
          LEFT JOIN flux.runs r ON r.agency_id = e.agency_id AND r.run_id = e.run_id
         WHERE e.agency_id = p_agency_id AND e.happened_at < p_before
           AND (r.run_id IS NULL OR r.state IN ('COMPLETED', 'CANCELLED', 'FAILED'))
         ORDER BY e.event_no LIMIT p_rows),
    gone AS (
        DELETE FROM flux.checkpoint_events e USING doomed d
         WHERE e.agency_id = d.agency_id AND e.event_no = d.event_no RETURNING 1)
    SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION flux.expire_events IS 'Deletes up to p_rows old events of finished runs of one agency; returns how many.';

CREATE FUNCTION flux.expire_runs(p_agency_id text, p_now timestamptz, p_rows integer)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    WITH doomed AS (
        SELECT r.agency_id, r.run_id
          FROM flux.runs r
         WHERE r.agency_id = p_agency_id AND r.expires_at <= p_now AND r.state IN ('COMPLETED', 'CANCELLED', 'FAILED')
         ORDER BY r.expires_at LIMIT p_rows),
    hashes AS (
        DELETE FROM flux.checkpoint_hashes h USING doomed d
         WHERE h.agency_id = d.agency_id AND h.run_id = d.run_id RETURNING 1),
    gone AS (
        DELETE FROM flux.runs r USING doomed d
         WHERE r.agency_id = d.agency_id AND r.run_id = d.run_id RETURNING 1)
    SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION flux.expire_runs IS 'Deletes up to p_rows finished runs of one agency whose time to live is over, with their checkpoints and hashes.';

REVOKE ALL ON FUNCTION flux.run_summary, flux.verify_chain, flux.explain_position, flux.expire_events, flux.expire_runs
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION flux.run_summary, flux.verify_chain, flux.explain_position TO flux_reader, flux_checkpoint;
GRANT EXECUTE ON FUNCTION flux.expire_events, flux.expire_runs TO flux_checkpoint;
