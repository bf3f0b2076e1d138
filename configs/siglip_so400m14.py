"""SigLIP So400m/14: image and text towers trained with the sigmoid loss (Zhai et al. 2023).

The sizes of the towers are those of Alabdulmohsin et al. 2023.

See `siglip` in vlp_jax/config/recipes.py for shared settings and differences from big_vision.

python -m vlp_jax.main --config=configs/siglip_so400m14.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

The tokenizer is downloaded once from the Hugging Face hub; without a network:
--config.data.text.tokenizer=FOLDER.
`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import siglip, variant_of


def get_config(variant="full"):
    config = siglip()
    config.model.image.preset = "So400m/14"
    config.model.text.update(preset="So400m", word_std=1152**-0.5, position_std=1152**-0.5)
    # parameters and moments, 10.5 GB, are sharded over all devices
    config.mesh.update(data=1, fsdp=-1)
    return variant_of(config, variant)
