"""SigLIP on the embedded emoji: clip_emoji.py with the sigmoid contrastive loss (Zhai et al. 2023).

python -m vlp_jax.main --config=configs/siglip_emoji.py --workdir=runs/siglip_emoji
"""

import pathlib
import runpy

from vlp_jax.config import variant_of


def get_config(variant="full"):
    config = runpy.run_path(str(pathlib.Path(__file__).with_name("clip_emoji.py")))["get_config"]()
    config.objectives = dict(contrastive=dict(kind="siglip"))
    return variant_of(config, variant)
