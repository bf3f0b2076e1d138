"""Accelerators: peak rates, topologies, and the collectives of a compiled program."""
