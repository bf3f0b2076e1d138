"""Captions to token ids: cleaning, tokenizers, word boundaries, packing."""
