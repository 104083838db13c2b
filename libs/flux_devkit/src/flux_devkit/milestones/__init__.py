"""What each milestone must show, as items of `make prove-…`."""
