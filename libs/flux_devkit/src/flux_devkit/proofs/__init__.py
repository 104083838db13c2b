"""Proofs that need a load, a clock or minutes: what `make prove-…` runs and `make test` does not."""
