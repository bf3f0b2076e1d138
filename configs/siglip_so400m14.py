"""SigLIP So400m/14 (Zhai et al. 2023; sizes: Alabdulmohsin et al. 2023).

python -m vlp_jax.main --config=configs/siglip_so400m14.py --workdir=DIR '--config.data.train.source=webdataset:...'
What it shares with other SigLIP recipes, and what differs from big_vision: `siglip` in vlp_jax/config/experiment.py.
The tokenizer is fetched once from the Hugging Face hub; without a network: --config.data.text.tokenizer=FOLDER.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.preset = "So400m/14"
    config.model.text.update(preset="So400m", word_std=1152**-0.5, position_std=1152**-0.5)
    config.mesh.update(data=1, fsdp=-1)  # parameters and moments, 10.5 GB, are divided over all devices
    return variant_of(config, variant)
