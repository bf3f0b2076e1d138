"""CLIP ViT-B/16: two towers and a contrastive loss (Radford et al. 2021, tables 18 to 20).

See `clip` in vlp_jax/config/recipes.py for shared settings and differences from OpenCLIP.

python -m vlp_jax.main --config=configs/clip_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.model.image.preset = "B/16"
    config.model.image.rematerialisation = config.model.text.rematerialisation = "save_matmuls"
    return variant_of(config, variant)
