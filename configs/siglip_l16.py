"""SigLIP L/16: image and text towers at 256 pixels, trained with the sigmoid loss (Zhai et al.
2023).

See `siglip` in vlp_jax/config/recipes.py for shared settings and differences from big_vision.

python -m vlp_jax.main --config=configs/siglip_l16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

The tokenizer is downloaded once from the Hugging Face hub; without a network:
--config.data.text.tokenizer=FOLDER.
`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.update(preset="L/16", image_size=256)
    config.model.text.update(preset="L", word_std=1024**-0.5, position_std=1024**-0.5)
    return variant_of(config, variant)
