"""graph_fusion_match: image-text matching by graphs of regions and words (after Liu et al. 2020,
GSMN).

The nodes of both graphs exchange messages, and each graph is pooled to one vector for matching.
Messages within and across graphs are those of "Graph matching networks" (Li et al. 2019, section
3.2); the two graphs are those of GSMN.

Settings of GSMN's code for MS-COCO: nodes of 1,024, word embeddings of 300, a bidirectional
recurrent network; Adam with learning rate 5e-4, batch 32, 20 epochs; gradients clipped at 2; the
learning rate divided by 10 after each quarter of the epochs.

Differences from GSMN:
- The recurrent network is an LSTM (GSMN: GRU).
- Regions are positions of the last feature map of ResNet-101, connected to their neighbours (GSMN:
  boxes of a detector on ResNet-101).
- Words at most two positions apart are connected (GSMN: by a parse).
- The loss is binary cross-entropy on the pooled graphs, of each pair and of each image with a
  negative text (GSMN: a triplet loss).

Where the metadata hold boxes and parses, `data.boxes`, `data.dependencies` and `model.fusion` use
them (docs/data.md, "Regions and parses").

python -m vlp_jax.main --config=configs/graph_fusion_match.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-30: 8 CPU-minutes; matching 0.32, the mean of the last ten rows (a constant answer: 0.69).
Of 3,380 pairs of val_vendor, half of them negative, accuracy 0.750, precision 0.786, recall 0.688,
F1 0.734, where always yes has 0.500, 0.500, 1 and 0.667.
"""

from vlp_jax.config import base, to_tree, variant_of
from vlp_jax.config.recipes import WEB_SOURCE, on_emoji
from vlp_jax.models.text.recurrent import BidirectionalLstmConfig
from vlp_jax.models.vision.resnet import ResNetConfig


def get_config(variant="full"):
    config = base()
    config.epochs = 20.0
    config.data.batch_size = 32
    config.data.train.source = WEB_SOURCE
    config.data.text.update(
        tokenizer="google-bert/bert-base-uncased",
        start_token="[CLS]",
        end_token="[SEP]",
        padding_token="[PAD]",
        canonicalize=("lower_case", "whitespace"),
    )
    config.model.image = to_tree(ResNetConfig(depth=101, image_size=448))
    config.model.text = to_tree(
        BidirectionalLstmConfig(width=1024, embedding_width=300, vocab_size=30522, length=77)
    )
    config.model.fusion = dict(kind="graph", width=1024, heads=16, mlp_dim=4096)
    config.objectives = dict(
        matching=dict(
            kind="matching", negatives="uniform", negatives_from="text", loss="binary_cross_entropy"
        )
    )
    config.optimizer.update(
        kind="adam", learning_rate=5e-4, b1=0.9, b2=0.999, epsilon=1e-8, clip_norm=2.0
    )
    config.optimizer.schedule.update(kind="exponential", factor=0.1, period=0.25)
    config.precision.compute = "bfloat16"
    config = variant_of(config, variant, small)
    config.evaluators = dict(
        val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("matching",))
    )
    return config


def small(config):
    config = on_emoji(config)
    config.steps = 800
    config.optimizer.schedule = dict(kind="cosine", warmup=0.05, final=0.1)
    config.model.image = to_tree(
        ResNetConfig(
            depth=18,
            blocks=(1, 1, 1),
            width=24,
            norm="group",
            groups=8,
            image_size=32,
            stem_size=3,
            stem_stride=2,
            max_pool=False,
        )
    )
    config.model.text = to_tree(
        BidirectionalLstmConfig(width=128, embedding_width=128, vocab_size=4096, length=16)
    )
    return config
