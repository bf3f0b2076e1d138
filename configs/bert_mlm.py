"""BERT-base: a text encoder trained by masked-language modelling alone (Devlin et al. 2019).

Settings (section 3 and appendix A.2):
- Model: 12 layers of width 768, GELU, dropout 0.1, also of the attention weights.
- Training: batch 256 of 512 tokens, 1,000,000 steps; Adam with learning rate 1e-4, b1 0.9, b2 0.999
  and weight decay 0.01; warm-up over 10,000 steps, then linear to 0.
- Masking: 15% of the tokens are selected.

Differences:
- Each text is one caption, and the next sentence is not predicted.
- Masked tokens are drawn at every step (released code: beforehand, ten times for each text).
- Initial values have a normal distribution (released code: truncated at two standard deviations).
- Adam's moments have bias correction (released code: none).

python -m vlp_jax.main --config=configs/bert_mlm.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:small` and `:smoke` shrink it for a CPU and the embedded data; `:small` has not been run to its
end yet.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.steps = 1_000_000
    config.data.batch_size = 256
    config.data.train.source = WEB_SOURCE
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "whitespace"),
    )
    config.model.text.update(
        preset="B",
        vocab_size=30522,
        length=512,
        causal=False,
        pooling="first",
        norm="post",
        final_norm=False,
        embedding_norm=True,
        norm_epsilon=1e-12,
        token_types=2,
        dropout=0.1,
        attention_dropout=0.1,
        initialization="normal",
        position_std=0.02,
        scan=True,
    )
    config.objectives = dict(
        words=dict(kind="masked_language", with_image=False, mask_id=103, tied=True)
    )
    config.optimizer.update(
        learning_rate=1e-4, b1=0.9, b2=0.999, epsilon=1e-6, weight_decay=0.01, clip_norm=1.0
    )
    config.optimizer.schedule.update(kind="linear", warmup=10_000.0)
    config.precision.compute = "bfloat16"
    config = variant_of(config, variant, small)
    config.evaluators = {}
    return config


def small(config):
    config = on_emoji(config)
    config.model.text.update(depth=4, dropout=0.0, attention_dropout=0.0)
    return config
