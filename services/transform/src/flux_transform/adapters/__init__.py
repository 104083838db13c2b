"""Where transform touches the world: object stores, plan files, worker processes."""
