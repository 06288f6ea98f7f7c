"""Parts that objectives are built from."""
