"""Readers of the layouts in which public data sets are published: a source kind for each.

Each reads its annotation files once, into an index of one row a sample (`records.py`), and images
on access. A reader is one function that yields rows, and a line in `sources/registry.py`.
"""
