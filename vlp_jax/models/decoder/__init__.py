"""Text decoders, and generation with them."""
