"""Flux transform: works the partitions of a source archive into a dataset."""
