"""What checkpoint decides, as pure functions of facts and `now`."""
