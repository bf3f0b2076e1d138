"""Measurements around the train step: throughput, goodput, compilations, profiler, watchdog,
metrics."""
