"""Losses as functions and as modules, and the module that is trained."""
