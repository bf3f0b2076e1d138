"""What the files in `configs/` share: a base with every default, and the shrinking that makes a smoke variant."""

import ml_collections

from vlp_jax.config import schema
from vlp_jax.config.parse import to_tree
from vlp_jax.errors import ConfigError


def base() -> ml_collections.ConfigDict:
    """Every section and key of `schema.Config` at its default, open to assignment. Objectives and evaluators are
    empty; the three durations are unset."""
    tree = to_tree(schema.Config())
    config = ml_collections.ConfigDict(tree, type_safe=False)
    config.unlock()
    return config


def variant_of(config: ml_collections.ConfigDict, variant: str) -> ml_collections.ConfigDict:
    """`config` itself for "full", its `smoke` form for "smoke"; anything else is a ConfigError."""
    if variant == "full":
        return config
    if variant == "smoke":
        return smoke(config)
    raise ConfigError(f"unknown variant {variant!r}, expected 'full' or 'smoke'")


def smoke(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same experiment shrunk for a laptop's CPU and the embedded data: two narrow layers a tower, small pictures, 42
    steps, every one logged, a checkpoint every 7. What makes the experiment itself (objectives, pooling, norms,
    activations, schedule kind, optimizer kind, precision, scan, rematerialisation) stays."""
    narrow = dict(width=64, depth=2, heads=4, mlp_dim=256)
    config.update(steps=42, examples=None, epochs=None, log_every=1)
    config.data.update(batch_size=64, workers=0)
    config.data.train.source = "embedded:emoji/train"
    config.data.text = to_tree(schema.Text(lower_case=config.data.text.lower_case))
    config.model.image.update(narrow)
    if config.model.image.stem == "patch":
        config.model.image.update(patch_size=8, image_size=32)
    config.model.text.update(narrow, length=min(config.model.text.length, 24), vocab_size=EMBEDDED_VOCABULARY)
    config.model.embedding_dim = 64
    config.optimizer.rate = 1e-3
    config.optimizer.schedule.update(warmup=0.1, decay=0.1)
    config.checkpoint.update(every_steps=7, every_minutes=None, keep=2)
    config.evaluators = dict(val_vendor=to_tree(schema.Evaluator(tasks=("retrieval", "zero_shot"))))
    return config


EMBEDDED_VOCABULARY = 4096
