-- name: lock
-- Two migrations at once wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended('flux migrations', 0))

-- name: become_owner
SET LOCAL ROLE flux_owner

-- name: prepare
CREATE SCHEMA IF NOT EXISTS flux_meta AUTHORIZATION flux_owner;
CREATE TABLE IF NOT EXISTS flux_meta.migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE flux_meta.migrations IS 'Which migrations this database has, and the digest of each file as it was applied.';
GRANT USAGE ON SCHEMA flux_meta TO flux_ingest, flux_checkpoint, flux_audit, flux_reader;
GRANT SELECT ON flux_meta.migrations TO flux_ingest, flux_checkpoint, flux_audit, flux_reader;

-- name: applied
SELECT version, sha256 FROM flux_meta.migrations ORDER BY version

-- name: prepared
SELECT to_regclass('flux_meta.migrations') IS NOT NULL

-- name: record
INSERT INTO flux_meta.migrations (version, name, sha256) VALUES ($1, $2, $3)
