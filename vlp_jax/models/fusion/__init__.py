"""Fusions of image and text encodings."""
