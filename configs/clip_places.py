"""CLIP on scenes composed of emoji at random places: a model whose heat maps can point at things.

The model of clip_emoji.py on larger images, and from its parameters. Each scene has up to four
emoji, and its caption names one of them, so that the model has to find it.

python -m vlp_jax.main --config=configs/clip_emoji.py --workdir=runs/clip_emoji
python -m vlp_jax.main --config=configs/clip_places.py --workdir=runs/clip_places

Results: 24 CPU-minutes (2 cores of an AMD EPYC, 2026-12-01, while other work ran, stopped once and
resumed); the highest point of Grad-CAM is in the box of the named emoji for 0.523 of 256 of
val_vendor, that of occlusion for 0.582 (a random point: 0.064, the centre: 0.098; docs/explain.md).

Another run to start from is --config.pretrained.emoji.workdir=DIR. `:smoke` starts from scratch.
"""

import pathlib
import runpy

from vlp_jax.config import variant_of


def get_config(variant="full"):
    config = runpy.run_path(str(pathlib.Path(__file__).with_name("clip_emoji.py")))["get_config"]()
    config.epochs = 6.0
    config.ema = 0.99
    config.pretrained = dict(emoji=dict(workdir="runs/clip_emoji"))
    config.data.train.source = "embedded:emoji_places/train"
    # scenes have no keywords
    config.data.train.update(caption=1.0, caption_and_keywords=0.0, keywords=0.0)
    config.data.images.crop_to_content = False
    config.data.augmentation.update(scale=(0.9, 1.1), shift=0.04, rotation=0.0, aspect=0.05)
    config.data.augmentation.background = "fixed"
    config.model.image.image_size = 64
    config.optimizer.learning_rate = 3e-3
    config.evaluators = dict(
        val_vendor=dict(source="embedded:emoji_places/val_vendor", tasks=("retrieval",))
    )
    config = variant_of(config, variant)
    if variant == "smoke":
        config.pretrained = {}
    return config
