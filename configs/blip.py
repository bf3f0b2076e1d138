"""BLIP: one text transformer that encodes texts, alone and with images, and decodes (Li et al.
2022).

Settings (sections 3.1, 3.2 and 4.1, and the released pretraining code and config):
- Model: ViT-B/16 at 224 pixels; BERT-base whose layers also have cross-attention, for matching, and
  a causal self-attention of their own, for captioning; projections to 256.
- Training: batch 2,880, 20 epochs of 14M images; AdamW with weight decay 0.05; learning rate 3e-4
  after 3,000 steps of warm-up, then multiplied by 0.9 after each epoch, down to 1e-6, as in the
  released config (paper: by 0.85).
- Momentum distillation: EMA decay 0.995, queue 57,600; alpha 0.4, rising from 0 over the first two
  epochs (9,722 steps of 2,880 in 14M images).
- Label smoothing 0.1; RandAugment, magnitude 5 of 10, here 15 of 30.

As in the released code:
- All parameters decay, also biases, norms and the temperature.
- 1e-4 is added to the probabilities of negatives.
- Captions are cleaned as by its `pre_caption`.
- `:pretrained` starts the image tower from DeiT-B/16, and the text tower, the decoder's own
  self-attention and its head from BERT-base (models/blip_pretrain.py, lines 40 to 54 and 91 to 93).

Differences (all else, and all other differences, as in albef.py):
- The warm-up starts from 0 (released code: 1e-6).
- [Encode] and [Decode] are two additional learned tokens, and not entries of the vocabulary.
- The encoders start from scratch (released code: from DeiT and BERT), unless `:pretrained` is
  given.
- The captioner and filter of web texts (section 3.3) are left out.

python -m vlp_jax.main --config=configs/blip.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`--config=configs/blip.py:pretrained` starts from public weights; another place is set as in
--config.pretrained.text.workdir=huggingface:DIR.

`:small` and `:smoke` shrink it for a CPU and the embedded data; `:small` draws negatives at the
initial temperature. `:small`, 2 cores of an AMD EPYC, 2026-11-30: 6 CPU-minutes; contrastive loss
3.74 (a guess among 320: 5.77), matching 0.49 (a constant answer: 0.64), captions 1.64 per token,
2.54 with smoothed labels (unigrams: 5.05). On val_vendor captions cost 2.12 per token, 65% of pairs
are classified correctly, and the median rank of a caption's image is 121 of 1,690; the untrained
model has 8.33, 50% and 840. Required of a run: 4 less per token, 10 points and 500 ranks more.
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
    config.update(epochs=20.0, ema=0.995)
    config.data.batch_size = 2880
    config.data.images.resize = "squash"
    config.data.augmentation.update(
        area=(0.2, 1.0),
        flip=0.5,
        randaugment=dict(operations=2, magnitude=15, probability=0.5, names=ALBEF_OPERATIONS),
    )
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "marks_to_blanks", "whitespace"),
    )
    config.model.embedding_dim = 256
    config.model.image.update(
        preset="B/16", pooling="cls", projection="linear_with_bias", initialization="normal"
    )
    config.model.text.update(
        BERT,
        preset="B",
        vocab_size=30522,
        length=30,
        causal=False,
        pooling="first",
        embedding_norm=True,
        projection="linear_with_bias",
        position_std=0.02,
    )
    config.model.fusion = dict(kind="in_text_tower")
    config.model.decoder = dict(kind="in_text_tower")
    config.objectives = dict(
        contrastive=dict(
            kind="momentum_contrastive",
            queue=57_600,
            alpha=0.4,
            alpha_warmup=9_722,
            scale_parameter="temperature",
            minimum_scale=2.0,
            teacher_dropout=True,
        ),
        matching=dict(kind="matching", negative_scale=None, negative_floor=1e-4),
        captioning=dict(kind="captioning", label_smoothing=0.1),
    )
    config.optimizer.update(
        learning_rate=3e-4, b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.05, decay_multipliers=()
    )
    config.optimizer.schedule.update(
        kind="exponential", factor=0.9, period=1 / 20, warmup=3000.0, final=1 / 300
    )
    config.precision.compute = "bfloat16"
    config.evaluators = dict(
        val_vendor=dict(
            source="embedded:emoji/val_vendor", tasks=("retrieval", "matching", "captions")
        )
    )
    config = variant_of(config, variant, small, pretrained)
    config.evaluators.val_vendor.tasks = ("retrieval", "matching", "captions")
    return config


def pretrained(config):
    layer = "model/text/transformer/layer_{}/"
    own = ("attention", "attention_norm")  # of the decoder
    config.pretrained = dict(
        image=dict(workdir=DEIT_BASE, parameters=("^model/image/",)),
        text=dict(
            workdir=BERT_BASE,
            parameters=("^model/text/", "^model/decoder/"),
            renamed=(
                *((f"{layer}decoder_{name}", f"{layer}{name}") for name in own),
                ("model/decoder", "objectives_words/head"),
            ),
        ),
    )
    return config


def small(config):
    del config.optimizer.schedule.period  # of the exponential schedule; the small form has a cosine
    config = on_emoji(config)
    config.ema = 0.98
    config.model.image.initialization = "xavier"  # 0.02 is a standard deviation for widths of 768
    config.model.text.update(NO_DROPOUT)
    config.objectives.contrastive.update(queue=256, alpha_warmup=300)
    # Negatives at the initial temperature: at the learned one nearly all are near-duplicates of the
    # image, as emoji have many.
    config.objectives.matching.negative_scale = 1 / 0.07
    # The temperature has about the recipe's learning rate: at 4e-3 it falls to a hundredth in 50
    # updates.
    config.optimizer.lr_multipliers = (("/temperature$", 0.05),)
    return config
