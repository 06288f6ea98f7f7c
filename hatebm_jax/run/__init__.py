"""A run's directory: its files, checkpoints, logs and lock."""
