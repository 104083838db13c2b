"""What audit asks of the world outside: keys, PostgreSQL."""
