-- The flood brake of the intake: how many records of an agency were refused in each minute, and which offsets one decision
-- answered because there were too many.
SET LOCAL lock_timeout = '5s';

CREATE TABLE flux_ingest.refusals (
    agency_id text        NOT NULL CHECK (agency_id <> ''),
    minute    timestamptz NOT NULL,
    refused   bigint      NOT NULL CHECK (refused > 0),
    PRIMARY KEY (agency_id, minute)
);
COMMENT ON TABLE flux_ingest.refusals IS
    'How many records were refused in a minute of LogAppendTime. A counter, not evidence: what a topic has lost is forgotten here.';

CREATE TABLE flux_ingest.floods (
    agency_id       text           NOT NULL CHECK (agency_id <> ''),
    topic           text           NOT NULL,
    kafka_partition integer        NOT NULL,
    last_offset     bigint         NOT NULL,
    offsets         int8multirange NOT NULL CHECK (NOT isempty(offsets)),
    refused         integer        NOT NULL CHECK (refused > 0),
    decided_at      timestamptz    NOT NULL DEFAULT now(),
    PRIMARY KEY (agency_id, topic, kafka_partition, last_offset),
    CHECK (last_offset = upper(offsets) - 1)
);
COMMENT ON TABLE flux_ingest.floods IS
    'Refused records that one decision answered together. The key ends with the last offset: nothing lies behind a lane, so to look there is free.';

GRANT SELECT, INSERT, UPDATE, DELETE ON flux_ingest.refusals TO flux_ingest;
GRANT SELECT, INSERT ON flux_ingest.floods TO flux_ingest;

DO $rls$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['flux_ingest.refusals', 'flux_ingest.floods'] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format($policy$
            CREATE POLICY service_batch ON %s FOR ALL TO flux_ingest
            USING (agency_id = ANY ((SELECT string_to_array(current_setting('flux.current_agency_ids', true), ','))::text[]))
            WITH CHECK (agency_id = ANY ((SELECT string_to_array(current_setting('flux.current_agency_ids', true), ','))::text[]))
        $policy$, tenant_table);
    END LOOP;
END
$rls$;
