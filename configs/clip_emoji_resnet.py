"""CLIP on the embedded emoji: a small ResNet (He et al. 2016) for small pictures, from nothing, on a laptop.

python -m vlp_jax.main --config=configs/clip_emoji_resnet.py --workdir=runs/clip_emoji_resnet
"""

from vlp_jax.config import base, schema, to_tree, variant_of


def get_config(variant="full"):
    config = base()
    config.epochs = 22.0
    config.ema = 0.995
    config.log_every = 50
    config.data.batch_size = 128
    config.data.train.update(caption=0.6, caption_and_keywords=0.3, keywords=0.1)
    config.data.images.update(crop_to_content=True, content_margin=0.04, resize="squash", interpolation="bilinear",
                              mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
    # No flip (arrows, "facing right") and no hue (colour names): captions tell them apart.
    config.data.augmentation.update(background="random", rotation=8.0, scale=(0.9, 1.25), shift=0.04, aspect=0.1,
                                    brightness=0.2, contrast=0.2, saturation=0.3, grayscale=0.1)
    config.model.embedding_dim = 192
    config.model.image = to_tree(schema.ResNetTower(depth=18, blocks=(1, 1, 2), width=48, norm="group", groups=8, image_size=32,
                                                     stem_size=3, stem_stride=2, max_pool=False))
    config.model.text.update(preset="Ti", width=128, depth=2, heads=2, mlp_dim=256, length=12, vocab_size=4096,
                             causal=False, pooling="mean", activation="gelu_tanh")
    config.objectives = dict(contrastive=dict(kind="softmax"))
    config.optimizer.update(kind="muon", rate=5e-3, b1=0.95, b2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0)
    config.optimizer.schedule.update(warmup=0.05)
    config.checkpoint.every_steps = 500
    config.evaluators = dict(val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("retrieval", "zero_shot")),
                             val_concept=dict(source="embedded:emoji/val_concept", tasks=("retrieval",)))
    return variant_of(config, variant)
