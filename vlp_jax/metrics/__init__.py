"""Metrics on NumPy arrays, independent of the models."""
