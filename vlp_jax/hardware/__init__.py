"""Accelerators: peak throughput, topologies, and the collectives of a compiled program."""
