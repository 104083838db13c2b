"""Flux ingest: judges each run request and decides."""
