"""The facts lane, and what signs the trees: gather → decide → act."""
