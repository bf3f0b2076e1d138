"""CoCa-Base: a contrastive and a captioning loss from one forward pass (Yu et al. 2022).

Settings (table 1 and section 4.1):
- Model: images of 288 x 288 pixels in patches of 18 x 18; 12 unimodal and 12 multimodal text
  layers; 256 queries for captioning.
- Training: batch 65,536, 500,000 steps; Adafactor with learning rate 8e-4 and weight decay 0.01; 2%
  warm-up, linear decay; weights 1 (contrastive) and 2 (captioning).

Differences:
- The vocabulary is CLIP's (paper: 64,000 pieces, not published).
- The contrastive pooler has an MLP, pooling="map" (paper: only a norm).
- Pairs that share a caption or an image are positives (paper: the pair itself).

The code was not released. Chosen by us: which parameters decay, and whether the decay is multiplied
by the learning rate; crops; initial values; the bounds of the scale.

python -m vlp_jax.main --config=configs/coca_b16.py --workdir=DIR \
    '--config.data.train.source=webdataset:...'

`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC,
2026-11-28: 5 minutes, 5 CPU-minutes. Losses: contrastive 1.64 (a guess among 64: 4.16), captioning
1.29 per token (unigrams: 5.02). On val_vendor: captioning loss 1.91 per token, median rank of a
caption's image 79 of 1,690 (untrained model: 8.44 and 769). Required of a run: 4 less per token,
and
500 ranks better.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.recipes import CLIP_TEXT, WEB_SOURCE, on_emoji


def get_config(variant="full"):
    config = base()
    config.steps = 500_000
    config.data.batch_size = 65_536
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.images.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    config.data.text.update(CLIP_TEXT)
    stack = dict(scan=True, rematerialisation="save_matmuls")
    config.model.image.update(stack, preset="B/16", image_size=288, patch_size=18, pooling="map")
    config.model.text.update(stack, preset="B", vocab_size=49_408, length=64, pooling="cls_end")
    config.model.decoder = dict(
        stack, kind="on_text_tower", preset="B", image_queries=256, tied=False
    )
    config.objectives = dict(
        contrastive=dict(kind="clip", implementation="ring"),
        captioning=dict(kind="captioning", weight=2.0),
    )
    config.optimizer.update(kind="adafactor", b2=0.999, learning_rate=8e-4, weight_decay=0.01)
    config.optimizer.schedule.update(kind="linear", warmup=0.02)
    config.precision.compute = "bfloat16"
    return shrunk(variant_of(config, variant, on_emoji), variant)


def shrunk(config, variant):
    """Fewer queries, and an evaluation of captions, in small variants."""
    if variant != "full":
        config.model.decoder.image_queries = 16
        config.evaluators = dict(
            val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("retrieval", "captions"))
        )
    return config
