"""PostgreSQL as Flux uses it: one tenant helper, named queries, migrations, lanes, outbox and relay."""
