-- The roles of a Flux cluster. Run once per PostgreSQL cluster by an administrator; safe to run again.
-- Log-ins get their passwords from whoever runs this (never from a file in the repository).

-- name: create_roles
-- Nothing here is superuser, owner or BYPASSRLS; the owner cannot log in.
DO $roles$
DECLARE
    wanted text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'flux_owner') THEN
        CREATE ROLE flux_owner NOLOGIN NOINHERIT;
    END IF;
    FOREACH wanted IN ARRAY ARRAY['flux_migrate', 'flux_ingest', 'flux_checkpoint', 'flux_audit', 'flux_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', wanted);
        END IF;
    END LOOP;
    -- What somebody gave too much is taken back; only then, for it takes a superuser.
    FOR wanted IN SELECT rolname FROM pg_roles
                   WHERE rolname IN ('flux_owner', 'flux_migrate', 'flux_ingest', 'flux_checkpoint', 'flux_audit',
                                     'flux_reader')
                     AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls OR rolreplication) LOOP
        EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION', wanted);
    END LOOP;
    GRANT flux_owner TO flux_migrate;
    FOREACH wanted IN ARRAY ARRAY['flux_ingest', 'flux_checkpoint', 'flux_audit', 'flux_reader'] LOOP
        -- A stopped process must not hold its successor up: the server ends what stands still.
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', wanted, '5s');
        EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', wanted, '5s');
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', wanted, '30s');
        EXECUTE format('ALTER ROLE %I SET tcp_user_timeout = %L', wanted, '10s');
        EXECUTE format('ALTER ROLE %I SET synchronous_commit = %L', wanted, 'on');
        -- Each service names its own tables without a schema; `flux` follows for the shared five.
        EXECUTE format('ALTER ROLE %I SET search_path = %s', wanted,
                       CASE wanted WHEN 'flux_reader' THEN 'flux, pg_temp' ELSE wanted || ', flux, pg_temp' END);
    END LOOP;
END
$roles$;

-- name: open_database
-- Nobody creates anything in a Flux database but its owner role.
DO $open$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO flux_migrate, flux_ingest, flux_checkpoint, flux_audit, flux_reader',
                   current_database());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO flux_owner', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
END
$open$;

-- name: set_password
-- ALTER ROLE takes no parameters; format() quotes both.
SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text);
