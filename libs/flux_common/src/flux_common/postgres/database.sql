-- name: tenant_unset
-- A connection must come to a transaction without anybody's agency on it.
SELECT coalesce(current_setting('flux.current_agency_id', true), '') = ''
   AND coalesce(current_setting('flux.current_agency_ids', true), '') = ''

-- name: set_tenants
-- Local to the transaction; ends with it, whatever happens.
SELECT set_config('flux.current_agency_ids', $1, true)

-- name: set_reader_tenant
SELECT set_config('flux.current_agency_id', $1, true)

-- name: server_version
SELECT current_setting('server_version_num')::integer
