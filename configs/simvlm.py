"""SimVLM-Base: prefix language modelling on images and texts (Wang et al. 2022).

Settings (equation 3 and section 4.1):
- Model: 12 layers of width 768. A convolution stem gives 14 x 14 tokens of an image of 224 pixels.
  They precede the text. Attention is bidirectional among them and a first part of the text, of
  random length.
- Training: batch 4,096, 1M steps; AdamW with learning rate 5e-4, b2 0.999, weight decay 0.01; 2%
  warm-up.

Differences:
- The stem has plain convolutions (paper: ResNet blocks).
- One decoder-only stack (paper: an encoder and a decoder).
- No texts without images (paper: C4), and CLIP's vocabulary (paper: 32,000 pieces); the paper's are
  not released with it.

The code was not released. Chosen by us: which parameters decay, and initial values.

python -m vlp_jax.main --config=configs/simvlm.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import CLIP_TEXT, WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.steps = 1_000_000
    config.data.batch_size = 4096
    config.data.augmentation.area = (0.5, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.images.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    config.data.text.update(CLIP_TEXT)
    # No transformer layer: the stem's tokens with position embeddings, and a norm.
    config.model.image.update(
        preset="B/16",
        depth=0,
        pooling="mean",
        stem="convolution",
        stem_channels=(64, 64, 128, 256, 512),
        stem_strides=(2, 1, 2, 2, 2),
    )
    config.model.text.update(vocab_size=49_408, length=256)
    config.model.decoder = dict(
        preset="B", image="prefix", text_prefix=0.8, scan=True, rematerialisation="save_matmuls"
    )
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(learning_rate=5e-4, b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.01)
    config.optimizer.schedule.update(kind="linear", warmup=0.02)
    config.precision.compute = "bfloat16"
    return shrunk(variant_of(config, variant, on_emoji), variant)


def shrunk(config, variant):
    """Evaluates captions in small variants, whose image tower has no layers either."""
    if variant != "full":
        config.model.image.depth = 0
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",))
        )
    if variant == "smoke":
        config.model.image.update(
            image_size=32, patch_size=16, stem_channels=(16, 16, 32, 32), stem_strides=(2, 2, 2, 2)
        )
    return config
