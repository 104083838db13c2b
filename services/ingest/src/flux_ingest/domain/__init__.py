"""What ingest decides, as pure functions of what was asked and what is known."""
