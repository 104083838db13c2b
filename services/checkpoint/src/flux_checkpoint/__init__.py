"""Flux checkpoint: remembers progress, dispatches work, completes runs."""
