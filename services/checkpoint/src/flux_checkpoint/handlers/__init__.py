"""One file per lane, and the dispatcher: gather → decide → act."""
