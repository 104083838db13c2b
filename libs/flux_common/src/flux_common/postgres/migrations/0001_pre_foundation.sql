-- The foundation: schema `flux` with its five tables, and each service's own schema.
-- Runs as flux_migrate, who becomes flux_owner for it.
SET LOCAL lock_timeout = '5s';

CREATE SCHEMA flux AUTHORIZATION flux_owner;
CREATE SCHEMA flux_ingest AUTHORIZATION flux_owner;
CREATE SCHEMA flux_checkpoint AUTHORIZATION flux_owner;
CREATE SCHEMA flux_audit AUTHORIZATION flux_owner;
GRANT USAGE ON SCHEMA flux TO flux_ingest, flux_checkpoint, flux_audit, flux_reader;
GRANT USAGE ON SCHEMA flux_ingest TO flux_ingest;
GRANT USAGE ON SCHEMA flux_checkpoint TO flux_checkpoint;
GRANT USAGE ON SCHEMA flux_audit TO flux_audit;

-- ---------------------------------------------------------------------------------------------------------------
-- The five tables.
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE flux.runs (
    agency_id         text        NOT NULL CHECK (agency_id ~ '^[a-z0-9][a-z0-9-]{1,62}$'),
    run_id            uuid        NOT NULL,
    request_id        text        NOT NULL CHECK (request_id ~ '^[A-Za-z0-9._:-]{1,128}$'),
    request           jsonb       NOT NULL,
    request_sha256    bytea       NOT NULL CHECK (length(request_sha256) = 32),
    state             text        NOT NULL CHECK (state IN ('ADMITTED', 'PLANNING', 'RUNNING', 'PAUSED', 'FINALIZING',
                                                            'COMPLETED', 'CANCELLING', 'CANCELLED', 'FAILED')),
    run_attempt       integer     NOT NULL DEFAULT 1 CHECK (run_attempt >= 1),
    terminal_attempt  integer     NOT NULL DEFAULT 0,
    run_window        integer     NOT NULL CHECK (run_window >= 1),
    agency_window     integer     NOT NULL CHECK (agency_window >= 1),
    pause_wanted      boolean     NOT NULL DEFAULT false,
    cancel_command_id text,
    cancel_deadline   timestamptz,
    broken_code       text,
    cause             text        CHECK (cause IN ('input', 'transform', 'infrastructure', 'policy')),
    code              text,
    plan_digest       bytea       CHECK (length(plan_digest) = 32),
    transform_version text,
    objects           bigint      NOT NULL DEFAULT 0,
    bytes_planned     bigint      NOT NULL DEFAULT 0,
    partitions        integer     NOT NULL DEFAULT 0,
    partition_objects integer[]   NOT NULL DEFAULT '{}',
    partitions_made   integer     NOT NULL DEFAULT 0,
    objects_made      bigint      NOT NULL DEFAULT 0,
    read              bigint      NOT NULL DEFAULT 0,
    written           bigint      NOT NULL DEFAULT 0,
    rejected          bigint      NOT NULL DEFAULT 0,
    bytes_in          bigint      NOT NULL DEFAULT 0,
    bytes_out         bigint      NOT NULL DEFAULT 0,
    manifest_uri      text,
    manifest_digest   bytea       CHECK (length(manifest_digest) = 32),
    manifest_files    bigint,
    manifest_rows     bigint,
    traceparent       text,
    kafka_partition   integer     NOT NULL,
    kafka_offset      bigint      NOT NULL,
    admitted_at       timestamptz NOT NULL,
    changed_at        timestamptz NOT NULL DEFAULT now(),
    ended_at          timestamptz,
    deadline          timestamptz NOT NULL,
    expires_at        timestamptz,
    PRIMARY KEY (agency_id, run_id),
    UNIQUE (agency_id, request_id),
    -- I6: one terminal event per (run, run_attempt); a final state has spoken for its attempt.
    CHECK (terminal_attempt BETWEEN 0 AND run_attempt),
    CHECK ((state IN ('COMPLETED', 'CANCELLED', 'FAILED')) = (terminal_attempt = run_attempt)),
    CHECK (state <> 'FAILED' OR (cause IS NOT NULL AND code IS NOT NULL)),
    -- I9: nothing completes without a plan, a partition and a manifest, and with counts that add up.
    CHECK (state <> 'COMPLETED' OR (plan_digest IS NOT NULL AND partitions > 0 AND manifest_digest IS NOT NULL
                                    AND read = objects AND read = written + rejected)),
    CHECK (partitions_made <= partitions)
);
COMMENT ON TABLE flux.runs IS
    'One row per admitted run: its state, attempt, plan, counts and end. Owned by checkpoint. Expires after the agency''s retention.';
CREATE INDEX runs_by_state ON flux.runs (agency_id, state, admitted_at DESC);
CREATE INDEX runs_open ON flux.runs (agency_id, run_id) WHERE state NOT IN ('COMPLETED', 'CANCELLED', 'FAILED');
CREATE INDEX runs_expiring ON flux.runs (agency_id, expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE flux.checkpoints (
    agency_id         text        NOT NULL CHECK (agency_id <> ''),
    run_id            uuid        NOT NULL,
    kind              text        NOT NULL CHECK (kind IN ('plan', 'extract', 'gather', 'finalize')),
    number            integer     NOT NULL CHECK (number >= 0),
    state             text        NOT NULL CHECK (state IN ('PENDING', 'DISPATCHED', 'RUNNING', 'FINISHED', 'FAILED')),
    term              integer     NOT NULL DEFAULT 0 CHECK (term >= 0),
    attempt           integer     NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    not_before        timestamptz NOT NULL DEFAULT now(),
    first_object      bigint      NOT NULL DEFAULT 0,
    object_count      bigint      NOT NULL DEFAULT 0,
    last_seq          integer     NOT NULL DEFAULT 0,
    cursor            bigint      NOT NULL DEFAULT 0,
    chain_head        bytea       CHECK (length(chain_head) = 32),
    result_digest     bytea       CHECK (length(result_digest) = 32),
    read              bigint      NOT NULL DEFAULT 0,
    written           bigint      NOT NULL DEFAULT 0,
    rejected          bigint      NOT NULL DEFAULT 0,
    bytes_in          bigint      NOT NULL DEFAULT 0,
    bytes_out         bigint      NOT NULL DEFAULT 0,
    rejects           jsonb       NOT NULL DEFAULT '{}',
    failure_code      text,
    failure_cause     text,
    worker            text,
    dispatched_at     timestamptz,
    last_heard        timestamptz,
    last_slice        timestamptz,
    kafka_partition   integer,
    changed_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agency_id, run_id, kind, number),
    FOREIGN KEY (agency_id, run_id) REFERENCES flux.runs ON DELETE CASCADE,
    CHECK (read = written + rejected),
    CHECK (cursor <= object_count AND read = cursor),
    CHECK (kind <> 'extract' OR state <> 'FINISHED' OR (cursor = object_count AND last_seq > 0)),
    CHECK (state NOT IN ('DISPATCHED', 'RUNNING', 'FINISHED') OR term > 0)
);
COMMENT ON TABLE flux.checkpoints IS
    'Durable progress of each partition and step of a run: state, term, cursor, chain head. Owned by checkpoint. Expires with its run.';
CREATE INDEX checkpoints_by_state ON flux.checkpoints (agency_id, run_id, kind, state, not_before);
CREATE INDEX checkpoints_in_hand ON flux.checkpoints (agency_id) WHERE kind = 'extract' AND state IN ('DISPATCHED', 'RUNNING');

CREATE TABLE flux.checkpoint_events (
    agency_id       text        NOT NULL CHECK (agency_id <> ''),
    event_no        bigint      GENERATED ALWAYS AS IDENTITY,
    run_id          uuid        NOT NULL,
    kind            text,
    number          integer,
    term            integer,
    seq             integer,
    type            text        NOT NULL,
    code            text,
    detail          jsonb       NOT NULL DEFAULT '{}',
    body            bytea,
    source          text        NOT NULL CHECK (source IN ('runs', 'progress', 'dispatcher')),
    kafka_partition integer,
    kafka_offset    bigint,
    happened_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agency_id, event_no),
    UNIQUE (agency_id, source, kafka_partition, kafka_offset),
    CHECK ((source = 'dispatcher') = (kafka_offset IS NULL))
);
COMMENT ON TABLE flux.checkpoint_events IS
    'The readable history of runs and their items, one row per applied event. Owned by checkpoint. The first to expire.';
CREATE INDEX checkpoint_events_by_run ON flux.checkpoint_events (agency_id, run_id, event_no);
CREATE INDEX checkpoint_events_by_age ON flux.checkpoint_events USING brin (happened_at);

CREATE TABLE flux.checkpoint_hashes (
    agency_id       text        NOT NULL CHECK (agency_id <> ''),
    run_id          uuid        NOT NULL,
    kind            text        NOT NULL DEFAULT 'extract' CHECK (kind = 'extract'),
    number          integer     NOT NULL,
    seq             integer     NOT NULL CHECK (seq >= 1),
    prev            bytea       NOT NULL CHECK (length(prev) = 32),
    hash            bytea       NOT NULL CHECK (length(hash) = 32),
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    applied_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agency_id, run_id, kind, number, seq)
);
COMMENT ON TABLE flux.checkpoint_hashes IS
    'The record chain of each partition: every slice record''s digest and the one before it. Survives the events. Owned by checkpoint.';
CREATE INDEX checkpoint_hashes_by_age ON flux.checkpoint_hashes USING brin (applied_at);

CREATE TABLE flux.audit_log (
    agency_id       text        NOT NULL CHECK (agency_id ~ '^([a-z0-9][a-z0-9-]{1,62}|_system)$'),
    seq             bigint      NOT NULL CHECK (seq >= 0),
    event_id        uuid        NOT NULL,
    entry           bytea       NOT NULL CHECK (length(entry) BETWEEN 1 AND 65536),
    leaf_hash       bytea       NOT NULL CHECK (leaf_hash = sha256('\x00'::bytea || entry)),
    receipt_for     uuid,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    sealed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agency_id, seq),
    UNIQUE (agency_id, event_id)
);
COMMENT ON TABLE flux.audit_log IS
    'The sealed entries of each agency''s Merkle log, gap-free from 0. Insert only; owned by audit. Kept as long as the agency''s audit retention.';
CREATE INDEX audit_log_receipts ON flux.audit_log (agency_id, seq) WHERE receipt_for IS NOT NULL;
CREATE INDEX audit_log_by_age ON flux.audit_log USING brin (sealed_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON flux.runs, flux.checkpoints TO flux_checkpoint;
GRANT SELECT, INSERT, DELETE ON flux.checkpoint_events, flux.checkpoint_hashes TO flux_checkpoint;
GRANT SELECT, INSERT ON flux.audit_log TO flux_audit;
GRANT SELECT ON flux.runs, flux.checkpoints, flux.checkpoint_events, flux.checkpoint_hashes, flux.audit_log TO flux_reader;

-- ---------------------------------------------------------------------------------------------------------------
-- Ingest's own: what was asked, by which token, and what was refused.
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE flux_ingest.requests (
    agency_id       text        NOT NULL CHECK (agency_id <> ''),
    request_id      text        NOT NULL,
    run_id          uuid        NOT NULL,
    request_sha256  bytea       NOT NULL CHECK (length(request_sha256) = 32),
    topic           text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    accepted_at     timestamptz NOT NULL,
    PRIMARY KEY (agency_id, request_id)
);
COMMENT ON TABLE flux_ingest.requests IS 'Accepted requests. A request id is taken by its first accepted body, for ever.';

CREATE TABLE flux_ingest.commands (
    agency_id       text        NOT NULL CHECK (agency_id <> ''),
    command_id      text        NOT NULL,
    request_id      text        NOT NULL,
    command_sha256  bytea       NOT NULL CHECK (length(command_sha256) = 32),
    topic           text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    accepted_at     timestamptz NOT NULL,
    PRIMARY KEY (agency_id, command_id)
);
COMMENT ON TABLE flux_ingest.commands IS 'Accepted commands. A command id is taken by its first accepted body, for ever.';

CREATE TABLE flux_ingest.rejections (
    agency_id       text        NOT NULL CHECK (agency_id <> ''),
    topic           text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    request_id      text,
    code            text        NOT NULL,
    rejected_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agency_id, topic, kafka_partition, kafka_offset)
);
COMMENT ON TABLE flux_ingest.rejections IS 'Refused requests and commands under their position. A rejection binds nothing.';

CREATE TABLE flux_ingest.token_uses (
    agency_id       text        NOT NULL CHECK (agency_id <> ''),
    use_digest      bytea       NOT NULL CHECK (length(use_digest) = 32),
    body_sha256     bytea       NOT NULL CHECK (length(body_sha256) = 32),
    topic           text        NOT NULL,
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (agency_id, use_digest)
);
COMMENT ON TABLE flux_ingest.token_uses IS 'Tokens and proofs that may be used once, until they would be refused anyway.';
CREATE INDEX token_uses_expiring ON flux_ingest.token_uses (agency_id, expires_at);

GRANT SELECT, INSERT ON flux_ingest.requests, flux_ingest.commands, flux_ingest.rejections TO flux_ingest;
GRANT SELECT, INSERT, DELETE ON flux_ingest.token_uses TO flux_ingest;

-- ---------------------------------------------------------------------------------------------------------------
-- Checkpoint's own: who dispatches, and which runs want looking at.
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE flux_checkpoint.dispatcher_leases (
    shard      smallint    PRIMARY KEY,
    holder     text        NOT NULL DEFAULT '',
    term       bigint      NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE flux_checkpoint.dispatcher_leases IS 'One dispatcher per shard: its holder and term. Writes happen under the term.';
INSERT INTO flux_checkpoint.dispatcher_leases (shard) SELECT generate_series(0, 3);

CREATE TABLE flux_checkpoint.agenda (
    shard     smallint    NOT NULL,
    agency_id text        NOT NULL,
    run_id    uuid        NOT NULL,
    due_at    timestamptz NOT NULL,
    PRIMARY KEY (agency_id, run_id)
);
COMMENT ON TABLE flux_checkpoint.agenda IS
    'When the dispatcher looks at a run next. An index over flux.runs: a sweep finds open runs that are missing here.';
CREATE INDEX agenda_due ON flux_checkpoint.agenda (shard, due_at);

CREATE TABLE flux_checkpoint.agencies (
    agency_id text     PRIMARY KEY,
    shard     smallint NOT NULL
);
COMMENT ON TABLE flux_checkpoint.agencies IS 'Agencies that ever had a run: what a sweep goes through.';

GRANT SELECT, UPDATE ON flux_checkpoint.dispatcher_leases TO flux_checkpoint;
GRANT SELECT, INSERT, UPDATE, DELETE ON flux_checkpoint.agenda TO flux_checkpoint;
GRANT SELECT, INSERT ON flux_checkpoint.agencies TO flux_checkpoint;

-- ---------------------------------------------------------------------------------------------------------------
-- Audit's own: the state of each tree.
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE flux_audit.tree_heads (
    agency_id   text        PRIMARY KEY CHECK (agency_id <> ''),
    size        bigint      NOT NULL DEFAULT 0 CHECK (size >= 0),
    frontier    bytea[]     NOT NULL DEFAULT '{}',
    root        bytea       NOT NULL CHECK (length(root) = 32),
    signed_size bigint      NOT NULL DEFAULT 0,
    signed_head text,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (signed_size BETWEEN 0 AND size)
);
COMMENT ON TABLE flux_audit.tree_heads IS 'Each agency''s log: size, frontier and root now, and the size last signed.';

CREATE TABLE flux_audit.nodes (
    agency_id text     NOT NULL CHECK (agency_id <> ''),
    level     smallint NOT NULL CHECK (level >= 0),
    index     bigint   NOT NULL CHECK (index >= 0),
    hash      bytea    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (agency_id, level, index)
);
COMMENT ON TABLE flux_audit.nodes IS 'Full subtrees of each log (level 0 = leaves): proofs need O(log n) of them and no rebuild.';

GRANT SELECT, INSERT, UPDATE ON flux_audit.tree_heads TO flux_audit;
GRANT SELECT, INSERT ON flux_audit.nodes TO flux_audit;

-- ---------------------------------------------------------------------------------------------------------------
-- The machinery that every service has in its own schema, reachable by its role alone.
-- ---------------------------------------------------------------------------------------------------------------

DO $machinery$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['flux_ingest', 'flux_checkpoint', 'flux_audit'] LOOP
        EXECUTE format($ddl$
            CREATE TABLE %1$I.lanes (
                topic           text        NOT NULL,
                kafka_partition integer     NOT NULL CHECK (kafka_partition >= 0),
                topic_id        text        NOT NULL,
                owner_epoch     bigint      NOT NULL DEFAULT 0,
                next_offset     bigint      NOT NULL CHECK (next_offset >= 0),
                ledger_floor    bigint      NOT NULL,
                controls        bigint      NOT NULL DEFAULT 0,
                watermark       timestamptz NOT NULL DEFAULT '-infinity',
                changed_at      timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (topic, kafka_partition),
                CHECK (ledger_floor <= next_offset)
            );
            COMMENT ON TABLE %1$I.lanes IS
                'One row per Kafka partition that this service reads: where it goes on, and who owns it (the fence).';

            CREATE TABLE %1$I.ledger (
                topic           text        NOT NULL,
                kafka_partition integer     NOT NULL,
                from_offset     bigint      NOT NULL,
                to_offset       bigint      NOT NULL,
                effects         bigint      NOT NULL CHECK (effects >= 0),
                duplicates      bigint      NOT NULL DEFAULT 0,
                fenced          bigint      NOT NULL DEFAULT 0,
                dead_letters    bigint      NOT NULL DEFAULT 0,
                controls        bigint      NOT NULL DEFAULT 0,
                lost            bigint      NOT NULL DEFAULT 0,
                booked_at       timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (topic, kafka_partition, from_offset),
                CHECK (to_offset > from_offset),
                -- I8: every offset of an Advance is accounted for.
                CHECK (effects + duplicates + fenced + dead_letters + controls + lost = to_offset - from_offset)
            );
            COMMENT ON TABLE %1$I.ledger IS 'One row per Advance: what became of the offsets [from_offset, to_offset).';

            CREATE TABLE %1$I.ledger_exceptions (
                topic           text    NOT NULL,
                kafka_partition integer NOT NULL,
                first_offset    bigint  NOT NULL,
                last_offset     bigint  NOT NULL,
                class           text    NOT NULL CHECK (class IN ('duplicate', 'fenced', 'dead_letter', 'control', 'lost')),
                code            text,
                ref             text,
                PRIMARY KEY (topic, kafka_partition, first_offset),
                CHECK (last_offset >= first_offset)
            );
            COMMENT ON TABLE %1$I.ledger_exceptions IS 'Offsets that were no effect, and why. A position without a row is an effect.';

            CREATE TABLE %1$I.dead_letters (
                agency_id       text        NOT NULL,
                topic           text        NOT NULL,
                kafka_partition integer     NOT NULL,
                kafka_offset    bigint      NOT NULL,
                sha256          bytea       NOT NULL CHECK (length(sha256) = 32),
                code            text        NOT NULL,
                buried_at       timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (topic, kafka_partition, kafka_offset)
            );
            COMMENT ON TABLE %1$I.dead_letters IS 'Records put aside: position and digest, never bytes; replay reads them from Kafka again.';

            CREATE TABLE %1$I.outbox (
                id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                shard           smallint    NOT NULL,
                agency_id       text        NOT NULL,
                number          bigint,
                event_id        uuid        NOT NULL,
                topic           text        NOT NULL,
                kafka_partition integer,
                key             text,
                headers         jsonb       NOT NULL,
                value           bytea       NOT NULL CHECK (length(value) <= 524288),
                written_at      timestamptz NOT NULL DEFAULT now()
            );
            COMMENT ON TABLE %1$I.outbox IS 'Events decided and not yet published; the relay numbers, publishes and deletes them.';
            CREATE INDEX outbox_unnumbered ON %1$I.outbox (shard, id) WHERE number IS NULL;
            CREATE UNIQUE INDEX outbox_numbered ON %1$I.outbox (shard, number) WHERE number IS NOT NULL;

            CREATE TABLE %1$I.outbox_parked (
                id              bigint      PRIMARY KEY,
                shard           smallint    NOT NULL,
                agency_id       text        NOT NULL,
                event_id        uuid        NOT NULL,
                topic           text        NOT NULL,
                kafka_partition integer,
                key             text,
                headers         jsonb       NOT NULL,
                value           bytea       NOT NULL,
                written_at      timestamptz NOT NULL,
                code            text        NOT NULL,
                parked_at       timestamptz NOT NULL DEFAULT now()
            );
            COMMENT ON TABLE %1$I.outbox_parked IS 'Events that the broker would not take; released in their old order by an operator.';
            CREATE INDEX outbox_parked_by_topic ON %1$I.outbox_parked (shard, topic, id);

            CREATE TABLE %1$I.relay_leases (
                shard         smallint    PRIMARY KEY,
                holder        text        NOT NULL DEFAULT '',
                term          bigint      NOT NULL DEFAULT 0,
                expires_at    timestamptz NOT NULL DEFAULT '-infinity',
                relay_counter bigint      NOT NULL DEFAULT 0,
                last_cursor   bigint      NOT NULL DEFAULT 0,
                CHECK (last_cursor <= relay_counter)
            );
            COMMENT ON TABLE %1$I.relay_leases IS 'One relay per outbox shard: holder, term, last number given and last known published.';
            INSERT INTO %1$I.relay_leases (shard) SELECT generate_series(0, 3);

            GRANT SELECT, INSERT, UPDATE ON %1$I.lanes TO %1$I;
            GRANT SELECT, INSERT ON %1$I.ledger, %1$I.ledger_exceptions, %1$I.dead_letters TO %1$I;
            GRANT SELECT, INSERT, UPDATE, DELETE ON %1$I.outbox TO %1$I;
            GRANT SELECT, INSERT, DELETE ON %1$I.outbox_parked TO %1$I;
            GRANT SELECT, UPDATE ON %1$I.relay_leases TO %1$I;
        $ddl$, service);
    END LOOP;
END
$machinery$;

-- ---------------------------------------------------------------------------------------------------------------
-- Row-level security: forced on every table with agency_id that is not machinery.
-- Readers see the one agency of the transaction. Service roles, which work on batches of many agencies, see the list of
-- the transaction. The sub-select makes it an init plan; unset and empty give no rows.
-- ---------------------------------------------------------------------------------------------------------------

DO $rls$
DECLARE
    tenant_table text;
    owner_role text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY[
        'flux.runs', 'flux.checkpoints', 'flux.checkpoint_events', 'flux.checkpoint_hashes', 'flux.audit_log',
        'flux_ingest.requests', 'flux_ingest.commands', 'flux_ingest.rejections', 'flux_ingest.token_uses',
        'flux_audit.tree_heads', 'flux_audit.nodes'
    ] LOOP
        owner_role := CASE
            WHEN tenant_table LIKE 'flux\_ingest.%' THEN 'flux_ingest'
            WHEN tenant_table LIKE 'flux\_audit.%' OR tenant_table = 'flux.audit_log' THEN 'flux_audit'
            ELSE 'flux_checkpoint' END;
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format($policy$
            CREATE POLICY service_batch ON %s FOR ALL TO %I
            USING (agency_id = ANY ((SELECT string_to_array(current_setting('flux.current_agency_ids', true), ','))::text[]))
            WITH CHECK (agency_id = ANY ((SELECT string_to_array(current_setting('flux.current_agency_ids', true), ','))::text[]))
        $policy$, tenant_table, owner_role);
        IF tenant_table LIKE 'flux.%' THEN
            EXECUTE format($policy$
                CREATE POLICY reader_agency ON %s FOR SELECT TO flux_reader
                USING (agency_id = (SELECT nullif(current_setting('flux.current_agency_id', true), '')))
            $policy$, tenant_table);
        END IF;
    END LOOP;
END
$rls$;
