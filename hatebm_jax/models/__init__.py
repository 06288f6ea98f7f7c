"""Networks of the paper as Flax Linen modules."""
