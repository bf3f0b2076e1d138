"""The device mesh, and where arrays lie on it."""
