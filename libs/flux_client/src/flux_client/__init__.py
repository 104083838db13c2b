"""What a producer, a subscriber and an operator of Flux use."""
