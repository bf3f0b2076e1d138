"""vqa_generative: visual question answering by generating the answer (Li et al. 2022, BLIP).

Settings of BLIP's fine-tuning on VQA v2 (section 4.4, figure 4 and appendix):
- Model: ViT-B/16 at 480 pixels with stochastic depth 0.1; BERT-base with cross-attention for the
  question; a decoder of BERT-base's size for the answer, which attends to the encoded question.
- Training: batch 256, 10 epochs; AdamW at 2e-5, cosine without warm-up, weight decay 0.05 of all
  parameters, as in the released code; label smoothing 0.1; crops of 50% to 100% of the area, flips,
  and RandAugment as in pretraining.
- Evaluation: answers are ranked by log-likelihood among the 128 with the likeliest first words, and
  also generated.

Differences:
- The model starts from scratch (released code: a pretrained BLIP).
- Answers are generated greedily (released code: with 3 beams).
- Of several answers to a question, the most frequent one is the target (released code: each, in
  proportion).
- Questions about Visual Genome are left out (released code: used, too).
- Answers are normalized as by the official evaluation (released code: used as in its files).
- The learning rate falls at every update (released code: once per epoch).
- The characters .!"()*#:;~ of questions become blanks (released code: removed).
- RandAugment has wider translations, as in albef.py.
- The decoder's norms precede each branch (BERT's follow it).

To start from a run of blip.py: --config.pretrained.blip.workdir=runs/blip
'--config.pretrained.blip.parameters=("^model/(image|text)/",)' initializes both towers, 219 of 561
parameters, with the image positions resampled from 14 x 14 patches to 30 x 30, and 5 new text
positions after BLIP's 30. Fusion and decoder are new: in BLIP, cross-attention and the decoder's
self-attention are inside the text tower.

Data: JSON lines with `image`, `question` and `answers`, a list with the answer of every annotator.

python -m vlp_jax.main --config=configs/vqa_generative.py --workdir=DIR \
    '--config.data.train.source=jsonl:vqa.jsonl?caption=question'

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-30: 6 CPU-minutes; an answer costs 0.76 a token, the mean of the last ten rows (unigrams:
3.66). Of 4,380 questions about val_vendor's images 37.6% are answered correctly by the best of 770
ranked answers, and 37.5% as written; always the most frequent answer would be 15.6%, and the most
frequent one for each type 26.6%.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import ALBEF_OPERATIONS, on_emoji
from vlp_jax.training.optimizers.base import OptimizerConfig

ANSWERS = 770  # of embedded:emoji_vqa/train


def get_config(variant="full"):
    config = base()
    config.epochs = 10.0
    config.data.batch_size = 256
    config.data.augmentation.update(
        area=(0.5, 1.0),
        flip=0.5,
        randaugment=dict(operations=2, magnitude=15, probability=0.5, names=ALBEF_OPERATIONS),
    )
    config.data.images.resize = "squash"
    # a placeholder to be overridden
    config.data.train.source = "jsonl:/data/vqa/train.jsonl?caption=question"
    config.data.images.transparency = "drop"
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "marks_to_blanks", "whitespace"),
    )
    config.data.targets = dict(
        answer=dict(
            kind="text", field="answers", classes=3128, length=10, canonicalize=("vqa_answer",)
        )
    )
    layers = dict(
        preset="B",
        norm_epsilon=1e-12,
        dropout=0.1,
        attention_dropout=0.1,
        initialization="normal",
        rematerialisation="full",
    )
    config.model.image.update(
        preset="B/16",
        image_size=480,
        pooling="cls",
        stochastic_depth=0.1,
        initialization="normal",
        scan=True,
        rematerialisation="full",
    )
    config.model.text.update(
        layers,
        vocab_size=30522,
        length=35,
        causal=False,
        pooling="first",
        norm="post",
        final_norm=False,
        embedding_norm=True,
        position_std=0.02,
    )
    config.model.fusion = dict(
        layers, kind="cross_attention", depth=12, norm="post", final_norm=False
    )
    config.model.decoder = dict(layers, kind="transformer", scan=True)
    config.objectives = dict(
        answer=dict(kind="answering", target="answer", shortlist=128, label_smoothing=0.1)
    )
    config.optimizer.update(
        learning_rate=2e-5, b2=0.999, epsilon=1e-8, weight_decay=0.05, decay_multipliers=()
    )
    config.optimizer.schedule.update(kind="cosine")
    config.precision.compute = "bfloat16"
    config.evaluators = dict(
        val=dict(
            source="jsonl:/data/vqa/val.jsonl?caption=question", tasks=("classification", "answers")
        )
    )
    config = variant_of(config, variant, small)
    if variant != "full":
        config.data.train.source = "embedded:emoji_vqa/train"
        config.data.targets.answer.update(field="answer", classes=ANSWERS, canonicalize=())
        config.objectives.answer.shortlist = 16
        config.evaluators = dict(
            val_vendor=dict(
                source="embedded:emoji_vqa/val_vendor",
                tasks=dict(classification=dict(by="type"), answers={}),
            )
        )
    return config


def small(config):
    config = on_emoji(config)
    config.update(steps=400, ema=0.98)
    config.data.batch_size = 128
    config.data.text.canonicalize = ("lower_case", "whitespace")
    config.objectives.answer.label_smoothing = 0.0
    config.optimizer.decay_multipliers = OptimizerConfig.of().decay_multipliers
    config.model.image.update(
        width=128,
        depth=1,
        mlp_dim=256,
        pooling="mean",
        activation="gelu_tanh",
        stochastic_depth=0.0,
        initialization="xavier",
        stem_channels=(32, 64, 96, 128, 128),
        stem_strides=(2, 2, 1, 2, 1),
    )
    narrow = dict(preset="Ti", width=128, depth=1, heads=4, mlp_dim=256, norm="pre", dropout=0.0)
    config.model.text.update(narrow, final_norm=True, pooling="mean", length=24)
    config.model.fusion.update(narrow, final_norm=True)
    config.model.decoder.update(narrow)
    config.optimizer.learning_rate = 5e-3
    return config
