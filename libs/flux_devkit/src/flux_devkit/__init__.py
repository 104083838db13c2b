"""A real Kafka and a real PostgreSQL without Docker, sample archives, fixtures and the oracle of Flux."""
