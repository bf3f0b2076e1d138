"""Flops, memory and collectives of a train step, computed without running it."""
