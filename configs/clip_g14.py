"""CLIP ViT-g/14 with the sizes of OpenCLIP's ViT-g-14 (Cherti et al. 2023); other hyper-parameters as CLIP's.

python -m vlp_jax.main --config=configs/clip_g14.py --workdir=DIR '--config.data.train.source=webdataset:...' \\
    --config.data.text.tokenizer=FOLDER
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import clip, variant_of


def get_config(variant="full"):
    config = clip()
    config.model.image.update(preset="g/14", activation="gelu", norm_epsilon=1e-5, patch_bias=True)
    config.model.text.update(preset="clip-g", activation="gelu")
    return variant_of(config, variant)
