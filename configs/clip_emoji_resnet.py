"""CLIP on the embedded emoji with a small ResNet (He et al. 2016) in place of the ViT; everything else as clip_emoji.

python -m vlp_jax.main --config=configs/clip_emoji_resnet.py --workdir=runs/clip_emoji_resnet
2 cores of an AMD EPYC, 2026-11-28: recall@1 on val_vendor 0.301 text to image, 0.241 image to text; zero-shot 0.517 by names, 0.500
by descriptions; 28 CPU-minutes beside other work. With nothing beside, a run of 23 epochs took 23.5 CPU-minutes, 0.82 CPU-seconds a
step, and reached 0.280: so much changes from one run to the next.
"""

import pathlib
import runpy

from vlp_jax.config import schema, to_tree, variant_of


def get_config(variant="full"):
    config = runpy.run_path(str(pathlib.Path(__file__).with_name("clip_emoji.py")))["get_config"]()
    config.epochs = 25.0
    config.model.image = to_tree(schema.ResNetTower(depth=18, blocks=(1, 1, 2), width=48, image_size=32, stem_size=3,
                                                     stem_stride=2, max_pool=False))
    return variant_of(config, variant)
