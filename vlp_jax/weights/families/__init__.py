"""Architectures, each in one format: rules for its tensors and settings of its config."""
