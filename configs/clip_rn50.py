"""CLIP ResNet-50: the modified ResNet with attention pooling (Radford et al. 2021, tables 18 and
19).

Embeddings have 1,024 elements. BatchNorm's statistics are those of the global batch, however it is
sharded.

See `clip` in vlp_jax/config/recipes.py for shared settings and differences from OpenCLIP.

python -m vlp_jax.main --config=configs/clip_rn50.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import clip, to_tree, variant_of
from vlp_jax.models.vision.resnet import ResNetConfig


def get_config(variant="full"):
    config = clip()
    config.model.image = to_tree(
        ResNetConfig(
            depth=50,
            clip=True,
            width=64,
            heads=32,
            output_dim=1024,
            image_size=224,
            rematerialisation="full",
            projection="none",
        )
    )
    config.model.text.rematerialisation = "save_matmuls"
    config.model.embedding_dim = 1024
    config.optimizer.update(b2=0.999, epsilon=1e-8)
    return variant_of(config, variant)
