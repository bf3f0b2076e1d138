"""Layouts of files: how a checkpoint is opened, and how one is written."""
