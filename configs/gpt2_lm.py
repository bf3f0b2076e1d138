"""GPT-2 small: a language model on texts alone (Radford et al. 2019).

Settings:
- Model: 12 layers, width 768, 12 heads, 50,257 tokens, context 1024; dropout 0.1, also of the
  attention weights (transformers' GPT2Config; OpenAI's training settings are not released); tied
  embeddings; residual branches with smaller initial values (section 2.3).
- Training: batch of 512 rows of 1024 tokens; AdamW with learning rate 6e-4, as for GPT-3 (Brown et
  al. 2020, appendix B).

Differences:
- Warm-up over 1% of the run (in GPT-3: over 375M of 300G tokens).
- A row holds many captions, with no attention between them (GPT-2: parts of long documents).

Packing: windows of 224 captions share 4 rows, which captions of 18 tokens fill. Longer captions
need smaller windows: `train/dropped_captions` counts those left out, and `train/captioning/filled`
is the filled part of the rows. The images of the pairs are read and not used.

python -m vlp_jax.main --config=configs/gpt2_lm.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.examples = 100_000_000
    config.data.batch_size = 512 // 4 * 224
    config.data.train.source = WEB_SOURCE
    config.data.text.update(
        tokenizer="openai-community/gpt2",
        start_token="<|endoftext|>",
        end_token="<|endoftext|>",
        padding_token="<|endoftext|>",
        packing=224,
        packing_rows=4,
    )
    # few pixels, as the images are not used
    config.model.image.update(image_size=32, patch_size=16)
    config.model.text.update(vocab_size=50_257, length=1024)
    config.model.decoder = dict(
        preset="B",
        image="none",
        activation="gelu_tanh",
        norm_epsilon=1e-5,
        dropout=0.1,
        attention_dropout=0.1,
        initialization="gpt2",
        scan=True,
        rematerialisation="save_matmuls",
    )
    config.objectives = dict(captioning=dict(kind="captioning"))
    config.optimizer.update(
        learning_rate=6e-4, b1=0.9, b2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0
    )
    config.optimizer.schedule.update(kind="cosine", warmup=0.01, final=0.1)
    config.precision.compute = "bfloat16"
    return shrunk(variant_of(config, variant, on_emoji), variant)


def shrunk(config, variant):
    """Packs captions of the embedded data, and evaluates the loss on held-out ones, in small
    variants."""
    if variant != "full":
        config.model.text.length = 16
        config.data.text.update(packing=4, packing_rows=2)
        config.evaluators = dict(
            val_concept=dict(source="embedded:emoji/val_concept", tasks=("captions",))
        )
    return config
