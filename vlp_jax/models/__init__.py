"""Linen modules: layers, towers, and their composition. They know nothing of losses."""
