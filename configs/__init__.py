"""One file for each experiment. Its get_config() returns the locked config."""
