"""What a producer, a subscriber and an operator of Flux use.

`FluxProducer` (producer.py) asks, `FluxSubscriber` (subscriber.py) hears, `verifier.py` proves offline, and the command
`flux-etl` (cli) does the same by hand.
"""
