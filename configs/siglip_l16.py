"""SigLIP L/16 at 256 pixels (Zhai et al. 2023).

python -m vlp_jax.main --config=configs/siglip_l16.py --workdir=DIR '--config.data.train.source=webdataset:...'
What it shares with other SigLIP recipes, and what differs from big_vision: `siglip` in vlp_jax/config/experiment.py.
The tokenizer is fetched once from the Hugging Face hub; without a network: --config.data.text.tokenizer=FOLDER.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.update(preset="L/16", image_size=256)
    config.model.text.update(preset="L", word_std=1024**-0.5, position_std=1024**-0.5)
    return variant_of(config, variant)
