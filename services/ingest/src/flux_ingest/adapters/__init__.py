"""Ingest's PostgreSQL: `.sql` files, and the functions that run them."""
