"""FLIP ViT-B/16: CLIP whose image tower encodes a random half of the patches in training (Li et al.
2023).

Settings of the paper: 12.8 epochs of 400M pairs; batch 32,768, with half of the patches; AdamW with
learning rate 4e-6 for every 256 examples of a batch, b2 0.95, weight decay 0.2; cosine after a
warm-up of 51.2M examples; crops of 50% to 100% of the area; mean of the patches; a bidirectional
text tower of 32 tokens.

As in the released code (facebookresearch/flip):
- Biases, norms and positions do not decay; the scale and the word embeddings do.
- Patches have fixed sine-cosine positions.
- Padding tokens of a text are attended to.
- Images are flipped, and normalized with ImageNet's mean.

Differences from the released code:
- Its config has batch 65,536, 12.8G examples and a warm-up of 25.6M of them.
- The tokenizer is CLIP's (there: BERT's), and text is pooled at its end token (there: at its
  first).
- The image tower has no class token (there: one that is part of the mean and decays).
- Query, key and value are initialized as three matrices (there: as one of three times the width).
- Images are resized with antialiasing (there: without).
- Pairs that share a caption or an image are positives (there: only the pair itself).
- The short run without dropped patches that the paper adds at the end is left out. Evaluation uses
  all patches.

See `clip` in vlp_jax/config/recipes.py for the settings shared with other CLIP recipes.

python -m vlp_jax.main --config=configs/flip_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.examples = 5_120_000_000
    config.data.augmentation.update(area=(0.5, 1.0), flip=0.5)
    config.data.images.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    tower = dict(
        activation="gelu_tanh",
        norm_epsilon=1e-6,
        initialization="xavier",
        rematerialisation="save_matmuls",
    )
    config.model.image.update(
        tower,
        preset="B/16",
        pooling="mean",
        token_drop=0.5,
        embedding_norm=False,
        patch_bias=True,
        position="sincos2d",
    )
    config.model.text.update(tower, length=32, causal=False, padding_mask=False, position_std=0.02)
    config.optimizer.update(
        learning_rate=4e-6 * 32_768 / 256,
        b2=0.95,
        epsilon=1e-8,
        weight_decay=0.2,
        decay_multipliers=((r"(bias|/scale|position)$", 0.0),),
    )
    config.optimizer.schedule.update(kind="cosine", warmup=51_200_000 / 32_768)
    return variant_of(config, variant)
