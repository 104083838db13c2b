-- What the release after this one might bring: everything that a *pre* file may do (docs/operations.md, order of an upgrade).
SET LOCAL lock_timeout = '5s';

CREATE TABLE flux.series (
    agency_id text    NOT NULL,
    series_no integer NOT NULL,
    PRIMARY KEY (agency_id, series_no)
);
GRANT SELECT, INSERT ON flux.series TO flux_checkpoint;

-- Columns that have a default or may be empty, in the tables of each service, and checks that hold for what is written now.
ALTER TABLE flux.runs
    ADD COLUMN label text,
    ADD COLUMN series_no integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT runs_bytes_check CHECK (bytes_in >= 0 AND bytes_out >= 0);
ALTER TABLE flux.checkpoints
    ADD COLUMN weight integer NOT NULL DEFAULT 1 CHECK (weight > 0),
    ADD CONSTRAINT checkpoints_seq_check CHECK (last_seq >= 0) NOT VALID;
ALTER TABLE flux.audit_log ADD COLUMN witness text NOT NULL DEFAULT '';
ALTER TABLE flux_ingest.requests ADD COLUMN channel text NOT NULL DEFAULT 'topic' CHECK (channel <> '');
DO $outboxes$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['flux_ingest', 'flux_checkpoint', 'flux_audit'] LOOP
        EXECUTE format('ALTER TABLE %I.outbox ADD COLUMN urgency smallint NOT NULL DEFAULT 0', service);
        EXECUTE format('ALTER TABLE %I.lanes ADD COLUMN note text', service);
    END LOOP;
END
$outboxes$;

CREATE INDEX checkpoint_events_by_type ON flux.checkpoint_events (agency_id, type);
CREATE INDEX requests_by_channel ON flux_ingest.requests (agency_id, channel) WHERE channel <> 'topic';

-- Functions that services and readers call, with another body under the same signature.
DO $functions$
DECLARE
    old text;
    new text;
    change text[];
BEGIN
    FOREACH change SLICE 1 IN ARRAY ARRAY[
        ['run_summary', 'r.manifest_uri', 'COALESCE(r.manifest_uri, r.label)'],
        ['expire_events', 'ORDER BY e.event_no', 'ORDER BY e.happened_at, e.event_no']] LOOP
        old := pg_get_functiondef(format('flux.%I', change[1])::regproc);
        new := replace(old, change[2], change[3]);
        ASSERT old <> new, change[1] || ' has no ' || change[2];
        EXECUTE new;
    END LOOP;
END
$functions$;
