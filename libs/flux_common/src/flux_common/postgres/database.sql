-- name: begin
BEGIN

-- name: commit
-- Its answer is looked at: after an error that somebody swallowed it says ROLLBACK, and nothing was kept.
COMMIT

-- name: rollback
ROLLBACK

-- name: tenant_unset
-- A connection must come to a transaction without anybody's agency on it.
SELECT coalesce(current_setting('flux.current_agency_id', true), '') = ''
   AND coalesce(current_setting('flux.current_agency_ids', true), '') = ''

-- name: set_tenants
-- The same, and then the list, local to the transaction: it ends with it, whatever happens. CASE keeps the order.
SELECT CASE WHEN coalesce(current_setting('flux.current_agency_id', true), '') = ''
             AND coalesce(current_setting('flux.current_agency_ids', true), '') = ''
            THEN set_config('flux.current_agency_ids', $1, true) = $1 ELSE false END

-- name: set_reader_tenant
SELECT CASE WHEN coalesce(current_setting('flux.current_agency_id', true), '') = ''
             AND coalesce(current_setting('flux.current_agency_ids', true), '') = ''
            THEN set_config('flux.current_agency_id', $1, true) = $1 ELSE false END

-- name: server_version
SELECT current_setting('server_version_num')::integer
