"""Flops, memory and collectives of a train step, known without running it."""
