"""The words and the machinery that every Flux service shares."""
