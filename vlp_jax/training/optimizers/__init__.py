"""Kinds of optimizers: each with its settings, and the Optax transformations that turn gradients
into directions."""
