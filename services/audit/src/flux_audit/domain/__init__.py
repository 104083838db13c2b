"""What audit decides: entries, the Merkle tree and its heads. Pure: no I/O, no clock, no third party."""
