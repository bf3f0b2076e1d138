"""resnet50_bert_concat: image-text matching by an MLP on two vectors (after Kiela et al. 2019,
MMBT).

The vectors of ResNet-50 and BERT are concatenated as in ConcatBert, the baseline of MMBT. Sizes are
those of He et al. 2016 (table 1) and of BERT-base (Devlin et al. 2019, section 3).

Settings of MMBT's paper and code: Adam with learning rate 1e-4 and weight decay 0.01; warm-up over
a tenth of the run, then linear to 0; batch 128; at most 100 epochs; hidden layers with ReLU, here
one of 768.

As in the released code:
- The scales of BatchNorm decay, and those of LayerNorm do not.
- `:pretrained` starts the image tower from torchvision's ImageNet weights and the text tower with
  its pooler from BERT-base (mmbt/models/image.py, line 18; mmbt/models/bert.py, line 17).

Differences (released code in parentheses):
- The model learns by matching, with binary cross-entropy, of each image with its own text and with
  a negative one (classification).
- The image tower is a ResNet-50 (ResNet-152), texts have up to 77 tokens (512), and both towers
  start from scratch (from pretrained towers), unless `:pretrained` is given.
- Gradients are not accumulated, as BatchNorm's statistics are those of a whole batch (accumulated
  over 24 batches before each update).
- The learning rate is only linear (also halved where the validation stalls).
- Gradients are clipped by their joint norm (each parameter's by its own norm).
- Adam has bias correction (none).
- The shorter side is resized to 224 (the code resizes to 256, and crops 224 at the centre).

python -m vlp_jax.main --config=configs/resnet50_bert_concat.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`--config=configs/resnet50_bert_concat.py:pretrained` starts from public weights; another place is
set as in --config.pretrained.text.workdir=huggingface:DIR.

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-30: 5 CPU-minutes; matching 0.42, the mean of the last ten rows (a constant answer: 0.69).
On val_vendor 72% of pairs are classified correctly, where always the same answer has 50%; a match
is predicted with precision 0.74 and recall 0.69, F1 0.71, by always yes with 0.50 and 1, F1 0.67.
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.config.recipes import BERT_BASE, WEB_SOURCE, on_emoji
from vlp_jax.models.vision.resnet import ResNetConfig
from vlp_jax.training.optimizers.base import OptimizerConfig


def get_config(variant="full"):
    config = base()
    config.epochs = 100.0
    config.data.batch_size = 128
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "whitespace"),
    )
    config.data.images.interpolation = "bilinear"
    config.model.image = to_tree(ResNetConfig(depth=50, image_size=224))
    config.model.text.update(
        preset="B",
        vocab_size=30522,
        length=77,
        causal=False,
        pooling="first",
        norm="post",
        final_norm=False,
        embedding_norm=True,
        norm_epsilon=1e-12,
        token_types=2,
        pooler=True,
        dropout=0.1,
        attention_dropout=0.1,
        position_std=0.02,
        activation="gelu",
        initialization="normal",
        scan=True,
    )
    config.model.fusion = dict(kind="concatenation", width=768, mlp_dim=768, activation="relu")
    config.objectives = dict(
        matching=dict(
            kind="matching", negatives="uniform", negatives_from="text", loss="binary_cross_entropy"
        )
    )
    config.optimizer.update(
        learning_rate=1e-4,
        b1=0.9,
        b2=0.999,
        epsilon=1e-6,
        weight_decay=0.01,
        clip_norm=1.0,
        decay_multipliers=((r"model/image/.*scale$", 1.0), (r"(bias|scale)$", 0.0)),
    )
    config.optimizer.schedule.update(kind="linear", warmup=0.1)
    config.precision.compute = "bfloat16"
    config = variant_of(config, variant, small, pretrained)
    config.evaluators = dict(
        val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("matching",))
    )
    return config


def pretrained(config):
    config.pretrained = dict(
        image=dict(workdir="timm:timm/resnet50.tv_in1k", parameters=("^model/image/",)),
        text=dict(workdir=BERT_BASE, parameters=("^model/text/",)),
    )
    return config


def small(config):
    config = on_emoji(config)
    config.steps = 800
    config.optimizer.decay_multipliers = OptimizerConfig.of().decay_multipliers
    config.model.image = to_tree(
        ResNetConfig(
            depth=50,
            blocks=(1, 1, 1),
            width=16,
            norm="group",
            groups=8,
            image_size=32,
            stem_size=3,
            stem_stride=2,
            max_pool=False,
        )
    )
    config.model.text.update(dropout=0.0, attention_dropout=0.0)
    return config
