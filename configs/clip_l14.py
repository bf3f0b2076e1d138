"""CLIP ViT-L/14 (Radford et al. 2021, tables 18 to 20).

python -m vlp_jax.main --config=configs/clip_l14.py --workdir=DIR '--config.data.train.source=webdataset:...'
What it shares with other CLIP recipes, and what differs from OpenCLIP: `clip` in vlp_jax/config/experiment.py.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.model.image.preset = "L/14"
    config.model.text.preset = "clip-L"
    config.optimizer.learning_rate = 4e-4
    return variant_of(config, variant)
