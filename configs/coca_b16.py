"""CoCa-Base: a contrastive and a captioning loss from one pass (Yu et al. 2022, table 1 and section 4.1).

python -m vlp_jax.main --config=configs/coca_b16.py --workdir=DIR '--config.data.train.source=webdataset:...'
288 x 288 pixels in patches of 18 x 18, 12 unimodal and 12 multimodal text layers, 256 queries; batch 65,536, 500,000 steps,
Adafactor, rate 8e-4, 2% warm-up, linear decay, weight decay 0.01; weights 1 and 2. CLIP's vocabulary stands in for the unpublished
one of 64,000 pieces; the contrastive pooler has an MLP (pooling="map"), where the paper has only a norm. Its code is not released:
which parameters decay, and whether by the rate, crops, first values and the bounds of the scale are ours; so is it that pairs which
share a caption or an image are positives.
`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC, 2026-11-28: 5 minutes, 5
CPU-minutes; contrast 1.64 (a guess among 64: 4.16), captions 1.29 a token (unigrams: 5.02); on val_vendor captions cost 1.91 a
token, and the median rank of a caption's picture is 79 of 1,690, where the untrained model has 8.44 and 769. Asked of a run: 4
less a token and 500 ranks better.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.experiment import CLIP_TEXT, WEB_SOURCE, on_emoji


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
    config.model.decoder = dict(stack, kind="on_text_tower", preset="B", image_queries=256, tied=False)
    config.objectives = dict(contrastive=dict(kind="clip", implementation="ring"),
                             captioning=dict(kind="captioning", weight=2.0))
    config.optimizer.update(kind="adafactor", b2=0.999, learning_rate=8e-4, weight_decay=0.01)
    config.optimizer.schedule.update(kind="linear", warmup=0.02)
    config.precision.compute = "bfloat16"
    return shrunk(variant_of(config, variant, on_emoji), variant)


def shrunk(config, variant):
    """Fewer queries, and captions looked at."""
    if variant != "full":
        config.model.decoder.image_queries = 16
        config.evaluators = dict(val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("retrieval", "captions")))
    return config
