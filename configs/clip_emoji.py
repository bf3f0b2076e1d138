"""CLIP on the embedded emoji: a small ViT with a deep convolution stem, trained from scratch on a
laptop.

python -m vlp_jax.main --config=configs/clip_emoji.py --workdir=runs/clip_emoji

Results: 26 CPU-minutes (2 cores of an AMD EPYC, 2026-11-30, while other work ran); recall@1 on
val_vendor 0.304 text to image, 0.243 image to text; zero-shot accuracy 0.493 with names, 0.527 with
descriptions.

`:smoke`, 42 steps in one CPU-minute, shows that the model learns: recall@10 on val_vendor is over
twice chance in both directions (0.020 text to image, 0.021 image to text; chance 0.006;
2026-11-30).
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.data.images.config import AugmentationConfig

# Words for each group, better than its bare name ("people & body"); a class embedding is the mean
# over its words.
GROUPS = {
    "smileys & emotion": ("face", "smiling face", "sad face", "heart", "emotion", "cat face"),
    "people & body": ("person", "woman", "man", "hand", "people", "family"),
    "animals & nature": ("animal", "bird", "fish", "plant", "flower", "tree", "insect"),
    "food & drink": ("food", "fruit", "vegetable", "drink", "meal", "dessert", "cake"),
    "travel & places": (
        "vehicle",
        "car",
        "train",
        "building",
        "house",
        "place",
        "weather",
        "clock",
        "moon",
    ),
    "activities": ("sport", "ball", "game", "medal", "party", "celebration"),
    "objects": (
        "tool",
        "clothing",
        "phone",
        "computer",
        "book",
        "musical instrument",
        "money",
        "household",
    ),
    "symbols": ("symbol", "button", "sign", "arrow", "zodiac", "square", "circle"),
    "flags": ("flag",),
}


def get_config(variant="full"):
    config = base()
    config.epochs = 26.0
    config.ema = 0.995
    config.log_every = 50
    config.data.batch_size = 128
    config.data.train.update(caption=0.6, caption_and_keywords=0.3, keywords=0.1)
    config.data.images.update(
        crop_to_content=True,
        content_margin=0.04,
        resize="squash",
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
    )
    # No flips and no changes of hue: captions depend on them (arrows, "facing right", colour
    # names).
    config.data.augmentation.update(
        background="random",
        rotation=8.0,
        scale=(0.9, 1.25),
        shift=0.04,
        aspect=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.3,
        grayscale=0.1,
    )
    config.model.embedding_dim = 192
    config.model.image.update(
        preset="Ti",
        width=192,
        depth=1,
        heads=3,
        mlp_dim=576,
        image_size=32,
        patch_size=8,
        stem="convolution",
        stem_channels=(32, 64, 64, 128, 128, 192, 192),
        stem_strides=(2, 1, 2, 1, 1, 2, 1),
        pooling="mean",
        activation="gelu_tanh",
    )
    config.model.text.update(
        preset="Ti",
        width=128,
        depth=2,
        heads=2,
        mlp_dim=256,
        length=12,
        vocab_size=4096,
        causal=False,
        pooling="mean",
        activation="gelu_tanh",
    )
    config.objectives = dict(contrastive=dict(kind="clip"))
    config.optimizer.update(
        kind="muon",
        learning_rate=5e-3,
        b1=0.95,
        b2=0.95,
        epsilon=1e-8,
        weight_decay=0.1,
        clip_norm=1.0,
    )
    config.optimizer.schedule.update(warmup=0.05)
    config.checkpoint.every_steps = 500
    config.evaluators = dict(
        val_vendor=dict(
            source="embedded:emoji/val_vendor",
            tasks=dict(retrieval={}, zero_shot=dict(class_names=GROUPS)),
        ),
        val_concept=dict(source="embedded:emoji/val_concept", tasks=("retrieval",)),
    )
    config = variant_of(config, variant)
    # few steps learn most from large updates, and images and captions almost unchanged
    if variant == "smoke":
        config.optimizer.learning_rate = 5e-3
        config.data.augmentation = to_tree(
            AugmentationConfig(background="random", scale=(0.97, 1.1), shift=0.02, aspect=0.04)
        )
        config.data.train.update(caption=1.0, caption_and_keywords=0.0, keywords=0.0)
    return config
