"""ALBEF: image and text encoders aligned by a contrastive loss, then fused by a third (Li et al.
2021).

Settings (sections 3 and 3.5, and the released pretraining config):
- Model: ViT-B/16 at 256 pixels; the lower half of BERT-base as the text encoder, and the upper
  half, with cross-attention, as the fusion; projections to 256.
- Training: batch 512, 30 epochs; AdamW with weight decay 0.02; learning rate 1e-4 after 1,000 steps
  of warm-up (2,000 in the code), cosine down to 1e-5.
- Momentum distillation: EMA decay 0.995, queue 65,536; alpha 0.4, rising from 0 over the first
  epoch (7,812 steps of 512 in 4M pairs), for the contrastive and the masked-language loss.
- Augmentation: RandAugment, magnitude 7 of 10, here 21 of 30.

As in the released code:
- The temperature itself is the parameter, is kept between 0.001 and 0.5, and decays.
- Negatives are drawn at that temperature. The teacher has dropout, too.
- [SEP] may be masked. Attention weights have dropout 0.1.
- Captions are cleaned as by its `pre_caption`.
- `:pretrained` starts the image tower from DeiT-B/16, the text tower from BERT-base's lower half
  and its embeddings, the fusion from its upper half, and the head of the masked words from BERT's
  (models/model_pretrain.py, lines 38 to 51).

Differences:
- The encoders start from scratch (released code: from DeiT and BERT), unless `:pretrained` is
  given. It resamples positions of patches by the cubic kernel with a = -1/2 (released code: -3/4).
- RandAugment has torchvision's ranges, wider for translations: at most 45% of the width (released
  code: 10 pixels).
- Negatives are drawn by cosines of the student's own embeddings, from the whole batch (released
  code: by those with the EMA model's embeddings, from the 64 pairs of a GPU).
- Candidates that share a caption or an image are positives (released code: only the pair itself).
- The queue starts empty (released code: full of random vectors).
- The warm-up starts from 0 (released code: 1e-5). The cosine falls at every update (released code:
  once per epoch).
- Captions are truncated to 25 tokens only (released code: first to 30 words).

python -m vlp_jax.main --config=configs/albef.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`--config=configs/albef.py:pretrained` starts from public weights; another place is set as in
--config.pretrained.text.workdir=huggingface:DIR.

`:small` and `:smoke` shrink it for a CPU and the embedded data; `:small` draws negatives at the
initial temperature. `:small`, 2 cores of an AMD EPYC, 2026-11-30: 8 CPU-minutes; contrastive loss
3.85 (a guess among 320: 5.77), matching 0.46 (a constant answer: 0.64), masked words 2.33
(unigrams: 3.90). On val_vendor 68% of pairs are classified correctly, and the median rank of a
caption's image is 141 of 1,690; the untrained model has 50% and 845. Required of a run: 10 points
and 500 ranks more.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import (
    ALBEF_OPERATIONS,
    BERT_BASE,
    DEIT_BASE,
    NO_DROPOUT,
    WEB_SOURCE,
    on_emoji,
)

BERT = dict(
    norm="post",
    norm_epsilon=1e-12,
    initialization="normal",
    dropout=0.1,
    attention_dropout=0.1,
    final_norm=False,
    activation="gelu",
)


def get_config(variant="full"):
    config = base()
    config.update(epochs=30.0, ema=0.995)
    config.data.batch_size = 512
    config.data.images.resize = "squash"
    config.data.augmentation.update(
        area=(0.2, 1.0),
        flip=0.5,
        randaugment=dict(operations=2, magnitude=21, probability=0.5, names=ALBEF_OPERATIONS),
    )
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "person", "separators", "marks", "whitespace"),
    )
    config.model.embedding_dim = 256
    config.model.image.update(
        preset="B/16",
        image_size=256,
        pooling="cls",
        projection="linear_with_bias",
        initialization="normal",
    )
    config.model.text.update(
        BERT,
        preset="B",
        depth=6,
        vocab_size=30522,
        length=25,
        causal=False,
        pooling="first",
        embedding_norm=True,
        token_types=2,
        projection="linear_with_bias",
        position_std=0.02,
    )
    config.model.fusion = dict(BERT, kind="cross_attention", preset="B", depth=6)
    config.objectives = dict(
        contrastive=dict(
            kind="momentum_contrastive",
            queue=65_536,
            alpha=0.4,
            alpha_warmup=7_812,
            scale_parameter="temperature",
            minimum_scale=2.0,
            teacher_dropout=True,
        ),
        matching=dict(kind="matching", negative_scale=None),
        words=dict(
            kind="masked_language",
            mask_id=103,
            tied=True,
            keep_last=False,
            alpha=0.4,
            alpha_warmup=7_812,
        ),
    )
    config.optimizer.update(learning_rate=1e-4, b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.02)
    config.optimizer.schedule.update(kind="cosine", warmup=1000.0, final=0.1)
    config.precision.compute = "bfloat16"
    config.evaluators = dict(
        val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("retrieval", "matching"))
    )
    config = variant_of(config, variant, small, pretrained)
    config.evaluators.val_vendor.tasks = ("retrieval", "matching")
    return config


def pretrained(config):
    text, fusion = "model/text/transformer/", "model/fusion/transformer/"
    config.pretrained = dict(
        image=dict(workdir=DEIT_BASE, parameters=("^model/image/",)),
        text=dict(
            workdir=BERT_BASE,
            parameters=("^model/text/", f"^{fusion}", "^objectives_words/"),
            renamed=(
                (f"{text}layer_{{}}", f"{text}layer_{{}}"),
                (f"{fusion}layer_{{}}", f"{text}layer_{{+6}}"),
            ),
        ),
    )
    return config


def small(config):
    config = on_emoji(config)
    config.ema = 0.98
    config.model.image.initialization = "xavier"  # 0.02 is a standard deviation for widths of 768
    config.model.text.update(NO_DROPOUT)
    config.model.fusion.update(NO_DROPOUT)
    config.objectives.contrastive.update(queue=256, alpha_warmup=300)
    # Negatives at the initial temperature: at the learned one nearly all are near-duplicates of the
    # image, as emoji have many.
    config.objectives.matching.negative_scale = 1 / 0.07
    # The temperature has about the recipe's learning rate: at 4e-3 it falls to a hundredth in 50
    # updates.
    config.optimizer.lr_multipliers = (("/temperature$", 0.05),)
    # half, so that the text alone does not determine them
    config.objectives.words.update(rate=0.5, alpha_warmup=300)
    return config
