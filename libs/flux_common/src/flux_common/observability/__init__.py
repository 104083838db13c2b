"""What the services say about themselves: logs in one shape, metrics named once, traces over Kafka and PostgreSQL."""
