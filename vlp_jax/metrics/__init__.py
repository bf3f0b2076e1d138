"""Metrics on NumPy arrays; nothing here knows of models."""
