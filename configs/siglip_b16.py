"""SigLIP B/16 (Zhai et al. 2023).

python -m vlp_jax.main --config=configs/siglip_b16.py --workdir=DIR '--config.data.train.source=webdataset:...'
What it shares with other SigLIP recipes, and what differs from big_vision: `siglip` in vlp_jax/config/experiment.py.
The tokenizer is fetched once from the Hugging Face hub; without a network: --config.data.text.tokenizer=FOLDER.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.preset = "B/16"
    config.model.image.rematerialisation = config.model.text.rematerialisation = "save_matmuls"
    return variant_of(config, variant)
