"""From captions to token ids: cleaning, tokenizers, word boundaries, packing."""
