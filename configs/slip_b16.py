"""SLIP ViT-B/16: CLIP and SimCLR losses on one image tower (Mu et al. 2022).

Settings of the released code (facebookresearch/SLIP):
- CLIP: crops of 50% to 100% of the area. A text tower of 12 layers of width 512.
- SimCLR: two views with crops of 8% to 100%, flips, colour changes, grayscale and blur; a head of
  width 4096 with 256 outputs; temperature 0.1; weight 1.
- Training: 25 epochs of YFCC15M, batch 4,096; AdamW with learning rate 3e-3 after one epoch of
  warm-up, cosine to 1e-5; b2 0.98, epsilon 1e-8, weight decay 0.1, also of the class token.
  Bilinear resizing.

Differences from the released code:
- Colours change in every view (there: in 80% of them).
- The warm-up starts from 0 (there: from 1e-6).
- A truncated caption keeps its end token (there: it loses it).

See `clip` in vlp_jax/config/recipes.py for shared settings and differences from OpenCLIP.

python -m vlp_jax.main --config=configs/slip_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import clip, to_tree, variant_of
from vlp_jax.data.images.config import AugmentationConfig

EPOCHS = 25


def get_config(variant="full"):
    config = clip()
    config.update(examples=None, epochs=float(EPOCHS))
    config.data.batch_size = 4096
    config.data.images.update(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear"
    )
    config.data.augmentation.area = (0.5, 1.0)
    config.data.view_augmentation = to_tree(
        AugmentationConfig(
            area=(0.08, 1.0),
            flip=0.5,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            grayscale=0.2,
            blur=0.5,
        )
    )
    config.model.embedding_dim = 512
    # As timm's ViT, not CLIP's.
    config.model.image.update(
        preset="B/16",
        embedding_norm=False,
        patch_bias=True,
        activation="gelu",
        norm_epsilon=1e-6,
        initialization="normal",
        rematerialisation="save_matmuls",
    )
    config.model.text.rematerialisation = "save_matmuls"
    config.objectives.views = dict(kind="simclr", first="first_view")
    config.optimizer.update(
        learning_rate=3e-3,
        b2=0.98,
        epsilon=1e-8,
        weight_decay=0.1,
        decay_multipliers=((r"(bias|scale)$", 0.0),),
    )
    config.optimizer.schedule.update(kind="cosine", warmup=1 / EPOCHS, final=1e-5 / 3e-3)
    config = variant_of(config, variant)
    if variant == "smoke":
        config.objectives.views.update(hidden_dim=128, output_dim=32)
    return config
