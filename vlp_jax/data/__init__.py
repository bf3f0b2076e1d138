"""The input side: sources, decoding, tokenization, the pipeline. Knows nothing of models and imports no JAX."""
