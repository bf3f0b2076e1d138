"""Metrics of generated captions: BLEU, ROUGE-L, METEOR and CIDEr of tokens of the Penn Treebank."""
