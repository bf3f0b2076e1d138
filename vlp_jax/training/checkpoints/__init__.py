"""Checkpoints: format, saving, integrity, the work directory and its lock."""
