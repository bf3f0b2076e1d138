"""CLIP ViT-g/14: two towers with the sizes of OpenCLIP's ViT-g-14 (Cherti et al. 2023).

Batch, learning rate and number of examples are those of its release with the scaling laws of Cherti
et al. (Model-g-14_Data-2B_Samples-13B_lr-5e-4_bs-64k). What this name leaves open is CLIP's.

See `clip` in vlp_jax/config/recipes.py for shared settings and differences from OpenCLIP.

python -m vlp_jax.main --config=configs/clip_g14.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.examples = 13_000_000_000
    config.data.batch_size = 65_536
    config.model.image.update(preset="g/14", activation="gelu", norm_epsilon=1e-5, patch_bias=True)
    config.model.text.update(preset="clip-g", activation="gelu")
    return variant_of(config, variant)
