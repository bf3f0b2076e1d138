"""SimVLM-Base: prefix language modelling on pictures and texts (Wang et al. 2022, equation 3 and section 4.1).

python -m vlp_jax.main --config=configs/simvlm.py --workdir=DIR '--config.data.train.source=webdataset:...'
12 layers, width 768; a convolution stem gives 14 x 14 tokens of a picture at 224, which stand in front of the text and are seen
both ways, as is a random beginning of the text; batch 4,096, 1M steps, AdamW, b2 0.999, weight decay 0.01, rate 5e-4, 2% warm-up.
The stem is of plain convolutions, not of ResNet blocks, and there is one stack that is decoder-only, the paper's is an
encoder-decoder; its texts without pictures (C4) and its vocabulary of 32,000 pieces are not public parts of it: CLIP's stands in.
Its code is not released: which parameters decay, and first values, are ours.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.experiment import CLIP_TEXT, WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.steps = 1_000_000
    config.data.batch_size = 4096
    config.data.augmentation.area = (0.5, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.images.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    config.data.text.update(CLIP_TEXT)
    # No layer of its own: the stem's tokens with a position each, and a norm.
    config.model.image.update(preset="B/16", depth=0, pooling="mean", stem="convolution", stem_channels=(64, 64, 128, 256, 512),
                              stem_strides=(2, 1, 2, 2, 2))
    config.model.text.update(vocab_size=49_408, length=256)
    config.model.decoder = dict(preset="B", image="prefix", text_prefix=0.8, scan=True, rematerialisation="save_matmuls")
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(learning_rate=5e-4, b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.01)
    config.optimizer.schedule.update(kind="linear", warmup=0.02)
    config.precision.compute = "bfloat16"
    return shrunk(variant_of(config, variant, on_emoji), variant)


def shrunk(config, variant):
    """The picture still without layers of its own, and captions looked at."""
    if variant != "full":
        config.model.image.depth = 0
        config.evaluators = dict(val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("captions",)))
    if variant == "smoke":
        config.model.image.update(image_size=32, patch_size=16, stem_channels=(16, 16, 32, 32), stem_strides=(2, 2, 2, 2))
    return config
