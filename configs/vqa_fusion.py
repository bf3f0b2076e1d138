"""vqa_fusion: visual question answering as classification of answers (Dou et al. 2022, METER).

Settings of METER's fine-tuning on VQA v2:
- Model: that of meter.py at 576 pixels; a head whose hidden layer has twice the width and a norm.
- Targets: frequent answers, normalized and scored as by the official evaluation; binary
  cross-entropy with soft scores of 3,129 answers.
- Training: batch 512, 10 epochs; AdamW with weight decay 0.01, also of the scales of the norms of
  the image tower and the head; learning rate 5e-6 for the encoders, 5 times that for the fusion, 50
  times for the head; warm-up over a tenth of the run, then linear to 0.

As in the command of METER's README, two operations of RandAugment with magnitude 9 change an image.

Differences:
- The operations are drawn from torchvision's fourteen (released code: from its own list).
- The model starts from scratch (released code: a pretrained METER), or with
  --config.pretrained.meter.workdir=runs/meter from a run of meter.py. This initializes all 363
  parameters of the model, with the image positions resampled from 18 x 18 patches to 36 x 36; the 6
  of the head are new.

Data: JSON lines with `image`, `question` and `answers`, a list with the answer of every annotator.

python -m vlp_jax.main --config=configs/vqa_fusion.py --workdir=DIR \
    '--config.data.train.source=jsonl:vqa.jsonl?caption=question'

`:small` and `:smoke` shrink it for a CPU and the questions about the embedded images, which have
one answer each. `:small`, 2 cores of an AMD EPYC, 2026-11-30: 5 CPU-minutes; 38.8% of val_vendor's
4,380 questions answered correctly, where always the most frequent answer has 15.6%, and the most
frequent one of each type 26.6%.
benchmarks/vqa_fusions.py has four fusions (README).
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import on_emoji

ANSWERS = 770  # of embedded:emoji_vqa/train


def get_config(variant="full"):
    config = base()
    config.epochs = 10.0
    config.data.batch_size = 512
    # a placeholder to be overridden
    config.data.train.source = "jsonl:/data/vqa/train.jsonl?caption=question"
    config.data.images.transparency = "drop"
    config.data.text.update(
        tokenizer="FacebookAI/roberta-base",
        start_token="<s>",
        end_token="</s>",
        padding_token="<pad>",
    )
    config.data.augmentation.randaugment.update(operations=2, magnitude=9)
    config.data.targets = dict(
        answer=dict(kind="scores", field="answers", classes=3129, canonicalize=("vqa_answer",))
    )
    config.model.image.update(
        preset="B/16",
        depth=11,
        image_size=576,
        pooling="cls",
        embedding_norm=True,
        patch_bias=False,
        norm_epsilon=1e-5,
        activation="quick_gelu",
        initialization="torch",
        scan=True,
        rematerialisation="full",
    )
    config.model.text.update(
        preset="B",
        vocab_size=50265,
        length=50,
        causal=False,
        pooling="first",
        norm="post",
        final_norm=False,
        embedding_norm=True,
        norm_epsilon=1e-5,
        token_types=1,
        dropout=0.1,
        attention_dropout=0.1,
        initialization="normal",
        position_std=0.02,
        scan=True,
        rematerialisation="full",
    )
    config.model.fusion = dict(
        kind="co_attention",
        preset="B",
        depth=6,
        norm="post",
        final_norm=False,
        norm_epsilon=1e-12,
        dropout=0.1,
        attention_dropout=0.1,
        initialization="normal",
        pooler=True,
        rematerialisation="full",
    )
    config.objectives = dict(
        answer=dict(kind="classification", target="answer", loss="binary", hidden_dim=1536)
    )
    config.optimizer.update(
        learning_rate=2.5e-4,
        b1=0.9,
        b2=0.98,
        epsilon=1e-8,
        weight_decay=0.01,
        decay_multipliers=((r"(model/image|head)/.*norm.*scale$", 1.0), (r"(bias|scale)$", 0.0)),
        lr_multipliers=((r"model/(image|text)/|_type$", 0.02), (r"model/fusion/", 0.1)),
    )
    config.optimizer.schedule.update(kind="linear", warmup=0.1)
    config.precision.compute = "bfloat16"
    config.evaluators = dict(
        val=dict(source="jsonl:/data/vqa/val.jsonl?caption=question", tasks=("classification",))
    )
    config = variant_of(config, variant, small)
    if variant != "full":
        config.data.train.source = "embedded:emoji_vqa/train"
        config.data.targets.answer.update(field="answer", classes=ANSWERS, canonicalize=())
        if config.data.targets.answer.kind == "scores":
            config.data.targets.answer.agreeing = 1  # one annotator
        config.evaluators = dict(
            val_vendor=dict(
                source="embedded:emoji_vqa/val_vendor", tasks=dict(classification=dict(by="type"))
            )
        )
    return config


def small(config):
    config = on_emoji(config)
    config.update(steps=400, ema=0.98)
    config.data.batch_size = 128
    config.model.image.update(
        width=128,
        depth=1,
        heads=4,
        mlp_dim=256,
        pooling="mean",
        embedding_norm=False,
        activation="gelu_tanh",
        stem_channels=(32, 64, 96, 128, 128),
        stem_strides=(2, 2, 1, 2, 1),
    )
    config.model.text.update(
        depth=1,
        length=21,
        norm="pre",
        final_norm=True,
        pooling="mean",
        dropout=0.0,
        attention_dropout=0.0,
        heads=4,
        mlp_dim=256,
    )
    config.model.fusion = dict(
        kind="cross_attention", preset="Ti", width=128, depth=2, heads=4, mlp_dim=256
    )
    config.data.targets.answer = dict(kind="class")
    config.objectives.answer.update(loss="softmax", hidden_dim=None)  # one answer per question
    # as in "full", a higher one for the head
    config.optimizer.update(learning_rate=5e-3, lr_multipliers=(("/head/", 5.0),))
    return config
