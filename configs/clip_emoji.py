"""draft"""
from vlp_jax.config import base
from vlp_jax.config.experiment import variant_of


def get_config(variant="full"):
    config = base()
    config.epochs = 1.0
    config.data.batch_size = 128
    config.model.image.update(preset="Ti", width=128, depth=2, heads=4, mlp_dim=256, patch_size=8, image_size=32)
    config.model.text.update(preset="Ti", width=128, depth=2, heads=4, mlp_dim=256, length=24, vocab_size=4096)
    config.objectives = dict(contrastive=dict(kind="softmax"))
    config.evaluators = dict(val_vendor=dict(tasks=("retrieval", "zero_shot")))
    return variant_of(config, variant)
