-- What a database is, read from its catalogues; one statement for each kind of thing. Each row begins with a name. Every
-- role may read the catalogues.

-- name: qualified
-- Names are written with their schema where the path does not lead there.
SELECT set_config('search_path', 'pg_catalog', false)

-- name: schemas
SELECT n.nspname::text AS name, pg_get_userbyid(n.nspowner)::text AS owner, n.nspacl::text[] AS acl,
       obj_description(n.oid, 'pg_namespace') AS comment
  FROM pg_namespace n WHERE n.nspname LIKE 'flux%' ORDER BY 1

-- name: relations
SELECT c.oid::regclass::text AS name, c.relkind::text AS kind, pg_get_userbyid(c.relowner)::text AS owner,
       c.relrowsecurity AS rls, c.relforcerowsecurity AS forced, c.relpersistence::text AS persistence,
       c.reloptions AS options, (SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid) AS part_of,
       (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a) AS acl,
       obj_description(c.oid, 'pg_class') AS comment
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname LIKE 'flux%' ORDER BY 1

-- name: columns
SELECT c.oid::regclass::text || '.' || a.attname AS name, a.attnum AS place, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS required, a.attidentity::text AS identity, a.attgenerated::text AS generated,
       pg_get_expr(d.adbin, d.adrelid) AS default, col_description(c.oid, a.attnum) AS comment, a.attacl::text[] AS acl
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE n.nspname LIKE 'flux%' AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY 1

-- name: constraints
SELECT k.conrelid::regclass::text || '.' || k.conname AS name, k.contype::text AS kind, k.convalidated AS validated,
       pg_get_constraintdef(k.oid) AS definition
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
 WHERE n.nspname LIKE 'flux%' AND k.contype <> 'n' ORDER BY 1 -- NOT NULL is the column's, and no constraint before 18

-- name: indexes
SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS relation, pg_get_indexdef(i.indexrelid) AS definition,
       i.indisvalid AS valid
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname LIKE 'flux%' ORDER BY 1

-- name: policies
SELECT p.polrelid::regclass::text || '.' || p.polname AS name, p.polpermissive AS permissive, p.polcmd::text AS command,
       (SELECT array_agg(pg_get_userbyid(r)::text ORDER BY pg_get_userbyid(r)) FROM unnest(p.polroles) r) AS roles,
       pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS checked
  FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname LIKE 'flux%' ORDER BY 1

-- name: functions
SELECT p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner)::text AS owner, p.prosecdef AS definer,
       p.proconfig AS settings, pg_get_functiondef(p.oid) AS definition, obj_description(p.oid, 'pg_proc') AS comment,
       (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(p.proacl) a) AS acl
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname LIKE 'flux%' ORDER BY 1

-- name: triggers
SELECT t.tgrelid::regclass::text || '.' || t.tgname AS name, pg_get_triggerdef(t.oid) AS definition
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname LIKE 'flux%' AND NOT t.tgisinternal ORDER BY 1

-- name: default_privileges
SELECT pg_get_userbyid(d.defaclrole)::text AS name, d.defaclobjtype::text AS kind, d.defaclacl::text[] AS acl
  FROM pg_default_acl d ORDER BY 1, 2

-- name: grants
-- Who may do what, with what is granted by default spelled out; owners left out.
SELECT g.name, g.kind, coalesce(pg_get_userbyid(nullif(x.grantee, 0))::text, 'PUBLIC') AS grantee, x.privilege_type AS privilege
  FROM (SELECT c.oid::regclass::text AS name, 'relation' AS kind, c.relowner AS owner,
               coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)) AS acl
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname LIKE 'flux%' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        UNION ALL
        SELECT c.oid::regclass::text || '.' || a.attname, 'column', c.relowner, a.attacl
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE n.nspname LIKE 'flux%' AND a.attacl IS NOT NULL
        UNION ALL
        SELECT n.nspname::text, 'schema', n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
          FROM pg_namespace n WHERE n.nspname LIKE 'flux%'
        UNION ALL
        SELECT p.oid::regprocedure::text, 'function', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname LIKE 'flux%') AS g
 CROSS JOIN LATERAL aclexplode(g.acl) AS x
 WHERE x.grantee <> g.owner ORDER BY 1, 2, 3, 4

-- name: roles
SELECT r.rolname::text AS name, r.rolcanlogin AS login,
       array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
                          CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
                          CASE WHEN r.rolreplication THEN 'REPLICATION' END], NULL) AS mighty,
       (SELECT array_agg(m.roleid::regrole::text ORDER BY m.roleid::regrole::text) FROM pg_auth_members m WHERE m.member = r.oid) AS member_of,
       r.rolconfig AS settings,
       CASE WHEN starts_with(r.rolname, 'flux_reader_')
            THEN coalesce(nullif(r.rolconnlimit, -1)::text, 'unlimited') END AS connections
  FROM pg_roles r WHERE r.rolname LIKE 'flux\_%' ORDER BY 1

-- name: members
-- Who may act as a role of Flux. The hold that a role's creator has of it since 16, without inheriting, is no such. An
-- agency's reader is a member of flux_reader, and may not become it.
SELECT m.roleid::regrole::text || ' by ' || m.member::regrole::text AS name
  FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
 WHERE r.rolname LIKE 'flux\_%'
   AND (NOT starts_with(m.member::regrole::text, 'flux_reader_')
        OR (r.rolname = 'flux_reader' AND to_jsonb(m) @> '{"set_option": true}'))
   AND NOT (to_jsonb(m) @> '{"inherit_option": false, "set_option": false}') ORDER BY 1

-- name: openings
-- Who may come into this database, and into its schema public; and what of PostgreSQL's own is everybody's and must not be.
SELECT o.name, o.kind, coalesce(pg_get_userbyid(nullif(x.grantee, 0))::text, 'PUBLIC') AS grantee, x.privilege_type AS privilege
  FROM (SELECT 'this database' AS name, 'database' AS kind, d.datdba AS owner, coalesce(d.datacl, acldefault('d', d.datdba)) AS acl
          FROM pg_database d WHERE d.datname = current_database()
        UNION ALL
        SELECT n.nspname::text, 'schema', n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
          FROM pg_namespace n WHERE n.nspname = 'public'
        UNION ALL
        SELECT p.oid::regprocedure::text, 'function', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
          FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace
           AND (p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$'
                OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea'))) AS o
 CROSS JOIN LATERAL aclexplode(o.acl) AS x
 WHERE x.grantee <> o.owner ORDER BY 1, 2, 3, 4

-- name: overrides
-- Settings of this database alone, of a role of Flux or about rows: they go before the role's own.
SELECT coalesce(nullif(s.setrole, 0)::regrole::text, 'everybody') || ': ' || o.setting AS name
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase CROSS JOIN LATERAL unnest(s.setconfig) AS o (setting)
 WHERE d.datname = current_database()
   AND (s.setrole::regrole::text LIKE 'flux\_%' OR o.setting ~ '^(flux\.|row_security=|search_path=|role=)') ORDER BY 1

-- name: applied
SELECT version, name, sha256 FROM flux_meta.migrations ORDER BY version

-- name: seeds
-- The rows of an installation.
SELECT 'ingest' AS name, to_jsonb(l) AS seeded FROM flux_ingest.relay_leases l
UNION ALL SELECT 'checkpoint', to_jsonb(l) FROM flux_checkpoint.relay_leases l
UNION ALL SELECT 'audit', to_jsonb(l) FROM flux_audit.relay_leases l
UNION ALL SELECT 'dispatcher', to_jsonb(l) FROM flux_checkpoint.dispatcher_leases l
UNION ALL SELECT 'migrations', to_jsonb(m) - 'applied_at' FROM flux_meta.migrations m
 ORDER BY 1, 2
