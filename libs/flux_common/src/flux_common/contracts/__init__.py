"""The published contract: event models, topics, envelope and canonical JSON.

The models are the source; `schemas/` is generated from them (`make schemas`) and committed.
"""
