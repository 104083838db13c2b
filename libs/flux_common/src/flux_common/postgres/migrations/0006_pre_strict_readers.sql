-- Strict mode. A session variable can be set by whoever can run SQL; who logged in cannot be chosen by a statement. So for
-- readers a second policy, RESTRICTIVE, goes by the login: an agency's own login sees its agency or nothing, the shared
-- flux_reader goes on as before, and any other login that became a member of it sees nothing.
SET LOCAL lock_timeout = '5s';

CREATE FUNCTION flux.reader_agency()
RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = flux, pg_temp
BEGIN ATOMIC
    -- Agency ids have no underscore, so the login's name gives exactly one back. 12: the length of flux_reader_.
    SELECT CASE
               WHEN session_user = 'flux_reader' THEN nullif(current_setting('flux.current_agency_id', true), '')
               WHEN starts_with(session_user::text, 'flux_reader_') THEN translate(substr(session_user::text, 13), '_', '-')
           END;
END;
COMMENT ON FUNCTION flux.reader_agency IS
    'The one agency that this session''s login may read: of an agency''s reader its own, of flux_reader the one that is set.';
REVOKE ALL ON FUNCTION flux.reader_agency FROM PUBLIC;
GRANT EXECUTE ON FUNCTION flux.reader_agency TO flux_reader;

DO $strict$
DECLARE
    shared text;
BEGIN
    FOREACH shared IN ARRAY ARRAY['runs', 'checkpoints', 'checkpoint_events', 'checkpoint_hashes', 'audit_log'] LOOP
        EXECUTE format(
            'CREATE POLICY reader_login ON flux.%I AS RESTRICTIVE FOR SELECT TO flux_reader '
            'USING (agency_id = (SELECT flux.reader_agency()))', shared);
    END LOOP;
END
$strict$;
