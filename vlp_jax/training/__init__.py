"""The loop and what it needs: state, update, optimizer, checkpoints, writers."""
