"""The input side: sources, decoding, tokenization and the input pipeline. Independent of the models; imports no JAX."""
