"""The training loop and its parts: state, update step, optimizer, checkpoints and metric
writers."""
