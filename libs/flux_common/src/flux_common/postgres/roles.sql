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
    GRANT flux_owner TO flux_migrate;
END
$roles$;

-- name: name_readers
-- DO takes no parameters: the readers that are made next, and what each may have, stand in settings of this transaction.
SELECT set_config('flux.readers', array_to_string($1::text[], ','), true),
       set_config('flux.reader_connections', $2::text, true)

-- name: create_readers
-- Strict mode: logins whose name says for which agency (migrations.reader_of); members of flux_reader and of nothing else,
-- so that they may what readers may, and are held to their agency by the policy reader_login.
DO $readers$
DECLARE
    wanted text;
    other regrole;
BEGIN
    FOREACH wanted IN ARRAY string_to_array(current_setting('flux.readers'), ',') LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', wanted);
        END IF;
        FOR other IN SELECT roleid FROM pg_auth_members
                      WHERE member = wanted::regrole AND roleid <> 'flux_reader'::regrole LOOP
            EXECUTE format('REVOKE %s FROM %I', other, wanted);
        END LOOP;
        -- Whoever may become flux_reader (SET ROLE) may give it another password, log in as it and choose an agency.
        EXECUTE format('GRANT flux_reader TO %I', wanted)
                || CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH SET FALSE' ELSE '' END;
    END LOOP;
END
$readers$;

-- name: settle_roles
-- What somebody gave too much is taken back, and every login has its time-outs and its path.
DO $settle$
DECLARE
    wanted text;
BEGIN
    -- Only then, for it takes a superuser.
    FOR wanted IN SELECT rolname FROM pg_roles
                   WHERE (rolname IN ('flux_owner', 'flux_migrate', 'flux_ingest', 'flux_checkpoint', 'flux_audit',
                                      'flux_reader') OR starts_with(rolname, 'flux_reader_'))
                     AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls OR rolreplication) LOOP
        EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION', wanted);
    END LOOP;
    FOR wanted IN SELECT rolname FROM pg_roles
                   WHERE rolname IN ('flux_ingest', 'flux_checkpoint', 'flux_audit', 'flux_reader')
                      OR starts_with(rolname, 'flux_reader_') LOOP
        -- A stopped process must not hold its successor up: the server ends what stands still.
        EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', wanted, '5s');
        EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', wanted, '5s');
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', wanted, '30s');
        EXECUTE format('ALTER ROLE %I SET tcp_user_timeout = %L', wanted, '10s');
        EXECUTE format('ALTER ROLE %I SET synchronous_commit = %L', wanted, 'on');
        -- Each service names its own tables without a schema; `flux` follows for the shared five.
        EXECUTE format('ALTER ROLE %I SET search_path = %s', wanted,
                       CASE WHEN wanted LIKE 'flux\_reader%' THEN 'flux, pg_temp' ELSE wanted || ', flux, pg_temp' END);
    END LOOP;
    -- A reader's holder may set the time-outs of a session as it likes; these two it may not, so they bound what one agency
    -- can take from the others: connections, and the disk that sorts spill to. The second takes a superuser or his grant.
    FOR wanted IN SELECT rolname FROM pg_roles WHERE rolname = 'flux_reader' OR starts_with(rolname, 'flux_reader_') LOOP
        IF wanted <> 'flux_reader' THEN
            EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', wanted, current_setting('flux.reader_connections')::int);
        END IF;
        BEGIN
            EXECUTE format('ALTER ROLE %I SET temp_file_limit = %L', wanted, '256MB');
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'temp_file_limit of % takes a superuser, or GRANT SET ON PARAMETER temp_file_limit TO %', wanted, current_user;
        END;
    END LOOP;
END
$settle$;

-- name: open_database
-- Nobody creates anything in a Flux database but its owner role. Advisory locks and large objects are everybody's unless that
-- is taken away: a reader could hold an agency's lock, and with it ingest's lanes, or fill the disk.
DO $open$
DECLARE
    wanted regprocedure;
BEGIN
    FOR wanted IN SELECT oid FROM pg_proc
                   WHERE pronamespace = 'pg_catalog'::regnamespace
                     AND (proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$' OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')) LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', wanted);
    END LOOP;
    GRANT EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) TO flux_migrate, flux_ingest;
    GRANT EXECUTE ON FUNCTION pg_try_advisory_xact_lock(bigint) TO flux_checkpoint;
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

-- name: close_shared_reader
-- Strict mode: the login that may choose its agency is a group alone.
ALTER ROLE flux_reader NOLOGIN

-- name: open_shared_reader
ALTER ROLE flux_reader LOGIN
