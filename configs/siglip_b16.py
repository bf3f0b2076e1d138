"""SigLIP B/16: image and text towers trained with the sigmoid loss (Zhai et al. 2023).

See `siglip` in vlp_jax/config/recipes.py for shared settings and differences from big_vision.

python -m vlp_jax.main --config=configs/siglip_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

The tokenizer is downloaded once from the Hugging Face hub; without a network:
--config.data.text.tokenizer=FOLDER.
`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.preset = "B/16"
    config.model.image.rematerialisation = config.model.text.rematerialisation = "save_matmuls"
    return variant_of(config, variant)
