"""SigLIP So400m/14 (Zhai et al. 2023; sizes: Alabdulmohsin et al. 2023).

python -m vlp_jax.main --config=configs/siglip_so400m14.py --workdir=DIR '--config.data.train.source=webdataset:...'
The tokenizer is fetched once from the Hugging Face hub; without a network: --config.data.text.tokenizer=FOLDER.
Never trained to the end by us; `:smoke` shrinks it for a CPU and the embedded data.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.preset = "So400m/14"
    config.model.text.preset = "So400m"
    config.mesh.update(data=1, fsdp=-1)  # parameters and moments, 10.5 GB, are divided over all devices
    return variant_of(config, variant)
