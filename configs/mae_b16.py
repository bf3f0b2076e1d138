"""MAE ViT-B/16: masked autoencoding of images alone (He et al. 2022).

Settings (tables 8 and 1): 800 epochs of ImageNet's 1.28M images; batch 4,096; AdamW with learning
rate 1.5e-4 for every 256 examples of a batch, b2 0.95, weight decay 0.05; cosine after 40 epochs of
warm-up; crops of 20% to 100% of the area and flips; 75% of the patches masked; a decoder of 8
layers of width 512.

As in the released code: pixels are normalized patch by patch (--norm_pix_loss, as in the command of
PRETRAIN.md).

Differences from the released code:
- Query, key and value are initialized as three matrices (there: as one of three times the width).
- The class token has a learned position.

`mae/target_variance`, next to `mae/loss`, is the loss of predicting the mean of each patch.
Captions are read and not used.

python -m vlp_jax.main --config=configs/mae_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:smoke` shrinks it for a CPU and the embedded data. We have not trained it to the end.
"""

from vlp_jax.config import base, variant_of

PICTURES = 1_281_167


def get_config(variant="full"):
    config = base()
    config.examples = 800 * PICTURES
    config.data.batch_size = 4096
    config.data.train.source = "webdataset:/data/imagenet/{0000..1023}.tar"
    config.data.images.transparency = "drop"
    config.data.images.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    config.data.augmentation.update(area=(0.2, 1.0), flip=0.5)
    config.model.image.update(
        preset="B/16", position="sincos2d", scan=True, rematerialisation="save_matmuls"
    )
    config.objectives = dict(
        mae=dict(
            kind="masked_autoencoder",
            mask_ratio=0.75,
            decoder_width=512,
            decoder_depth=8,
            decoder_heads=16,
        )
    )
    config.optimizer.update(
        kind="adamw",
        learning_rate=1.5e-4 * 4096 / 256,
        b1=0.9,
        b2=0.95,
        epsilon=1e-8,
        weight_decay=0.05,
    )
    config.optimizer.schedule.update(kind="cosine", warmup=40 * PICTURES / 4096)
    config.precision.compute = "bfloat16"
    config = variant_of(config, variant)
    config.evaluators = {}  # no embedding is learned
    if variant == "smoke":
        config.objectives.mae.update(decoder_width=32, decoder_depth=1, decoder_heads=4)
    return config
