"""CLIP on the embedded emoji with a small ResNet as image tower (He et al. 2016).

Differences from clip_emoji.py, as the convolutions of a ResNet take longer: smaller images, and one
layer less in the text tower. All else is the same.

python -m vlp_jax.main --config=configs/clip_emoji_resnet.py --workdir=runs/clip_emoji_resnet

Results: 21 CPU-minutes (2 cores of an AMD EPYC, 2026-11-30, while other work ran); recall@1 on
val_vendor 0.312 text to image, 0.240 image to text; zero-shot accuracy 0.483 with names, 0.506 with
descriptions. With 32 pixels and two layers: 0.301, 28 CPU-minutes while other work ran.
"""

import pathlib
import runpy

from vlp_jax.config import to_tree, variant_of
from vlp_jax.models.vision.resnet import ResNetConfig


def get_config(variant="full"):
    config = runpy.run_path(str(pathlib.Path(__file__).with_name("clip_emoji.py")))["get_config"]()
    config.epochs = 25.0
    config.model.image = to_tree(
        ResNetConfig(
            depth=18,
            blocks=(1, 1, 2),
            width=48,
            image_size=28,
            stem_size=3,
            stem_stride=2,
            max_pool=False,
        )
    )
    config.model.text.depth = 1
    return variant_of(config, variant)
