-- Invariant I8 holds for each count and not only for their sum: a batch that holds a record twice had -1 controls, and
-- added up.
SET LOCAL lock_timeout = '5s';

DO $counts$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['flux_ingest', 'flux_checkpoint', 'flux_audit'] LOOP
        EXECUTE format(
            'ALTER TABLE %I.ledger ADD CONSTRAINT ledger_counts_check '
            'CHECK (least(duplicates, fenced, dead_letters, controls, lost) >= 0)', service);
    END LOOP;
END
$counts$;
