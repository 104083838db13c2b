"""What transform decides, without doing any of it: pure functions over frozen values."""
