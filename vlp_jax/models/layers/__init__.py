"""Layers shared by all towers: attention, transformer stack, positions."""
