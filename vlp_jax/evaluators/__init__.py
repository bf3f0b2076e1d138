"""Evaluators of a trained model, used in the training loop and as a command."""
