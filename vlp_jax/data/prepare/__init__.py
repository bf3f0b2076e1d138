"""Conversion of a source to ArrayRecord files, in parallel and resumable."""
