"""An experiment that compiles in seconds, and batches for it."""

import jax
import numpy as np

from vlp_jax.config import base, to_config

TOWER = dict(preset="Ti", width=8, depth=1, heads=2, mlp_dim=8)
BATCH = 8


def experiment(**changes):
    """A config whose towers are as small as they get; `changes` are dotted keys with __ for the
    dot."""
    config = base()
    config.update(steps=10, objectives=dict(contrastive=dict(kind="clip")))
    config.data.batch_size = BATCH
    config.model.image.update(TOWER, patch_size=4, image_size=8)
    config.model.text.update(TOWER, vocab_size=20, length=5)
    config.optimizer.update(learning_rate=0.01, weight_decay=0.1)
    set_keys(config, changes)
    return to_config(config.to_dict())


def set_keys(config, changes):
    """Sets dotted keys with __ for the dot."""
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value


def batch_of(rows=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([np.arange(rows), np.arange(rows)], axis=1).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (rows, 8, 8, 3)).astype(np.uint8),
        "text": rng.integers(0, 20, (rows, 5)).astype(np.int32),
        "text_mask": np.arange(5) < rng.integers(1, 6, (rows, 1)),
        "caption_id": ids,
        "image_id": ids + 100,
    }


def leaves(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
