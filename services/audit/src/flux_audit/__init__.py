"""Flux audit: seals facts into one Merkle log per agency."""
