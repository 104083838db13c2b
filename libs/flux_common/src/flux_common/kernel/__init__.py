"""Words that every room may speak: identities, positions, errors and the clock. Standard library only."""
