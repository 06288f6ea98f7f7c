"""Measures of samples, chains and scores."""
