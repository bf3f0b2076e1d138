"""FLIP ViT-B/16: CLIP whose image tower sees a random half of the patches in training (Li et al. 2023).

python -m vlp_jax.main --config=configs/flip_b16.py --workdir=DIR '--config.data.train.source=webdataset:...'
Published: 12.8 epochs of 400M pairs, batch 32,768 with half of the patches, AdamW at 4e-6 for every 256 examples of a batch, b2
0.95, weight decay 0.2, cosine after a warm-up of 51.2M examples, crops of 50% to 100%, a mean of the patches, a bidirectional text
tower of 32 tokens. The tokenizer is CLIP's here, not BERT's, and text is pooled at its end token. In evaluation all patches are
seen; the short run without dropped patches that the paper adds at the end is left out.
What it shares with other CLIP recipes, and what differs from OpenCLIP: `clip` in vlp_jax/config/experiment.py.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.examples = 5_120_000_000
    config.data.augmentation.area = (0.5, 1.0)
    config.model.image.update(preset="B/16", pooling="mean", token_drop=0.5, embedding_norm=False, patch_bias=True,
                              activation="gelu", rematerialisation="save_matmuls")
    config.model.text.update(length=32, causal=False, activation="gelu", rematerialisation="save_matmuls")
    config.optimizer.update(rate=4e-6 * 32_768 / 256, b2=0.95, weight_decay=0.2)
    config.optimizer.schedule.update(kind="cosine", warmup=51_200_000 / 32_768)
    return variant_of(config, variant)
