"""The requests lane: read, then gather → decide → act in one commit."""
