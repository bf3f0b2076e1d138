"""CLIP ViT-g/14 with the sizes of OpenCLIP's ViT-g-14, and the batch, rate and examples of its release with the scaling
laws of Cherti et al. 2023 (Model-g-14_Data-2B_Samples-13B_lr-5e-4_bs-64k); what that name leaves open is CLIP's.

python -m vlp_jax.main --config=configs/clip_g14.py --workdir=DIR '--config.data.train.source=webdataset:...'
What it shares with other CLIP recipes, and what differs from OpenCLIP: `clip` in vlp_jax/config/experiment.py.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.examples = 13_000_000_000
    config.data.batch_size = 65_536
    config.model.image.update(preset="g/14", activation="gelu", norm_epsilon=1e-5, patch_bias=True)
    config.model.text.update(preset="clip-g", activation="gelu")
    return variant_of(config, variant)
