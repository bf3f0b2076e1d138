"""Linen modules: layers, towers, and their composition. No losses."""
