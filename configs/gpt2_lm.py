"""GPT-2 small on texts alone (Radford et al. 2019; optimizer: Brown et al. 2020, appendix B).

python -m vlp_jax.main --config=configs/gpt2_lm.py --workdir=DIR '--config.data.train.source=webdataset:...'
12 layers, width 768, 12 heads, 50,257 tokens, context 1024, dropout 0.1, tied embeddings; batch 512 texts; AdamW, rate 6e-4. The
pictures beside the texts are read and not looked at.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.experiment import WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.examples = 100_000_000
    config.data.update(batch_size=512, workers=16)
    config.data.train.source = WEB_SOURCE
    config.data.text.update(tokenizer="openai-community/gpt2", start_token="<|endoftext|>", end_token="<|endoftext|>",
                            padding_token="<|endoftext|>")
    config.model.image.update(image_size=32, patch_size=16)  # as few pixels as can be: nothing looks at them
    config.model.text.update(vocab_size=50_257, length=1024)
    config.model.decoder = dict(preset="B", image="none", activation="gelu_tanh", norm_epsilon=1e-5, dropout=0.1,
                                initialization="normal", scan=True, rematerialisation="save_matmuls")
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(rate=6e-4, b1=0.9, b2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0)
    config.optimizer.schedule.update(kind="cosine", warmup=0.01, final=0.1)
    config.precision.compute = "bfloat16"
    return shrunk(variant_of(config, variant, on_emoji), variant)


def shrunk(config, variant):
    """The loss on held-out texts is measured."""
    if variant != "full":
        config.evaluators = dict(val_concept=dict(source="embedded:emoji/val_concept", tasks=("captions",)))
    return config
