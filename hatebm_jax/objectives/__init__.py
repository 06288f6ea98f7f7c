"""Training objectives: a file each, pure functions over a state."""
