-- name: tables
-- Everything that holds rows, whoever may read it.
SELECT n.nspname::text, c.relname::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
 ORDER BY 1, 2

-- name: plant
-- Where a proof plants what the search must find.
CREATE TABLE public.planted (what bytea)

-- name: water
INSERT INTO public.planted VALUES ($1)

-- name: uproot
DROP TABLE IF EXISTS public.planted
