"""FLAVA: two encoders and a fusion that read pictures, texts and both, masked and whole (Singh et al. 2022).

Sections 3.1 to 3.4 and appendix A, tables A.1 and A.2: ViT-B/16 at 224 pixels; the same layers over BERT's words for the text; six
more over both, behind a linear map each, with a class token of their own; projections to 512; no dropout; batch 8,192, 150,000
updates of image-text pairs; AdamW, rate 1e-3 after 10,000 updates, then a cosine, weight decay 0.1 of all parameters, as in the
released code. All losses weigh 1; 15% of the words are hidden, whole ones, and patches in BEiT's blocks (75 of 196 in the released
code, here 40%: 78). One pair of ten is matched with a wrong text; crops have 90% to 100% of the area.

What differs: codes of patches come from a random-projection quantizer (Chiu et al. 2022), not from DALL-E's pretrained dVAE; as
many of them, 8,192. The paper's MIM and MLM read ImageNet and text corpora, each in 15% of the updates, here the pairs themselves
in every update. Its encoders start from DINO and masked words, here from nothing. Matching looks at whole pairs, in the paper at
masked ones; a wrong text is drawn for matching alone, in the code for all losses but those of true pairs. Pairs that share a
caption or an image are positives, there only the pair itself. Text length is 77, as in its released processor.

python -m vlp_jax.main --config=configs/flava.py --workdir=DIR '--config.data.train.source=webdataset:...'
`:small` and `:smoke` shrink it for a CPU and the embedded data. `:small`, 2 cores of an AMD EPYC, 2026-11-28, at commit 7124b7a,
before the recipe's later corrections: 8 CPU-minutes; contrast 1.79 (a guess among 64: 4.16), matching 0.26 (always the rate: 0.64),
codes 2.68 (frequencies: 3.90), words 3.76 (unigrams: 4.49), both at once 2.61 and 2.96 (3.89 and 4.49); on val_vendor 72% of pairs
are told right, and the median rank of a caption's picture is 92 of 1,690, where the untrained model has 50% and 870. Asked of a
run: 10 points and 500 ranks better.
"""

from vlp_jax.config import base, variant_of
from vlp_jax.config.experiment import WEB_SOURCE, on_emoji

LAYERS = dict(preset="B", norm_epsilon=1e-12, initialization="normal", activation="gelu", scan=True, rematerialisation="full")


def get_config(variant="full"):
    config = base()
    config.steps = 150_000
    config.data.batch_size = 8192
    config.data.images.resize = "squash"
    config.data.augmentation.area = (0.9, 1.0)
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.text.update(tokenizer="google-bert/bert-base-uncased", start_token="[CLS]", end_token="[SEP]",
                            padding_token="[PAD]", canonicalize=("lower_case", "whitespace"))
    config.model.embedding_dim = 512
    config.model.image.update(LAYERS, preset="B/16", pooling="cls", projection="linear_with_bias")
    config.model.text.update(LAYERS, vocab_size=30522, length=77, causal=False, pooling="first", embedding_norm=True, token_types=2,
                             projection="linear_with_bias", position_std=0.02)
    config.model.fusion = dict(LAYERS, kind="merged", depth=6, pooler=True, class_token=True, projected=True, normalised=False)
    config.objectives = dict(contrastive=dict(kind="clip", implementation="ring"),
                             matching=dict(kind="matching", negatives="uniform", negatives_from="text", negative_rate=0.1),
                             patches=dict(kind="masked_image"),
                             words=dict(kind="masked_language", with_image=False, mask_id=103, whole_words=True),
                             both=dict(kind="masked_joint", mask_id=103, whole_words=True))
    config.optimizer.update(learning_rate=1e-3, b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.1, decay_multipliers=())
    config.optimizer.schedule.update(kind="cosine", warmup=10_000.0)
    config.precision.compute = "bfloat16"
    config.evaluators = dict(val_vendor=dict(source="embedded:emoji/val_vendor", tasks=("retrieval", "matching")))
    config = variant_of(config, variant, small)
    config.evaluators.val_vendor.tasks = ("retrieval", "matching")
    return config


def small(config):
    config = on_emoji(config)
    for stack in (config.model.image, config.model.text, config.model.fusion):
        stack.update(width=96, heads=3, mlp_dim=288, initialization="xavier")
    config.model.text.length = 12
    config.objectives.contrastive.implementation = "dense"
    return config
