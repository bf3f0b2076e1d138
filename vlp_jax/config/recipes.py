"""Shared parts of the files in `configs/`: the base, recipes, and the reduction to smoke and small
variants."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import ml_collections

from vlp_jax.config.durations import as_recipe, settle
from vlp_jax.config.parse import read_section
from vlp_jax.config.registry import root_section
from vlp_jax.config.section import Section, Sizes
from vlp_jax.config.tree import to_tree
from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.text.tokenizer import TextConfig
from vlp_jax.errors import ConfigError

Change = Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict]


def base() -> ml_collections.ConfigDict:
    """Every section and key of `Experiment` at its default, open to assignment.

    Objectives and evaluators are empty, and the three durations are unset.
    """
    tree = to_tree(root_section()())
    config = ml_collections.ConfigDict(tree, type_safe=False)
    config.unlock()
    return config


def variant_of(
    config: ml_collections.ConfigDict,
    variant: str,
    small: Change | None = None,
    pretrained: Change | None = None,
) -> ml_collections.ConfigDict:
    """The variant of a config: "full", "smoke", "small" or "pretrained".

    "full" is the config itself, "smoke" its `smoke` form, "small" the result of the recipe's own
    `small`, and "pretrained" that of its own `pretrained`, the full recipe from public weights. A
    duration set afterwards replaces its own.

    Raises: ConfigError for an unknown variant.
    """
    variants: dict[str, Change] = {"full": lambda config: config, "smoke": smoke}
    variants |= {"small": small} if small else {}
    variants |= {"pretrained": pretrained} if pretrained else {}
    if variant not in variants:
        raise ConfigError(f"unknown variant {variant!r}, expected {', '.join(map(repr, variants))}")
    return as_recipe(variants[variant](settle(config)))


def clip() -> ml_collections.ConfigDict:
    """The settings shared by CLIP's ViTs (Radford et al. 2021, tables 18 and 19).

    Batch 32,768, 32 epochs of 400M pairs; AdamW with b2 0.98, epsilon 1e-6 and weight decay 0.2;
    2,000 warm-up steps, cosine; BPE of 49,408 tokens, length 77.

    As in OpenCLIP:
    - Token ids are those of its tokenizer.
    - The image tower is initialised with PyTorch's defaults, as also in OpenAI's code.
    - The class token does not decay.

    Differences from OpenCLIP:
    - Biases are initialised with 0 (there: initialised with small random values).
    - Pairs that share a caption or an image are positives (`objectives.contrastive.positives`;
      there: only the pair itself).
    """
    config = base()
    config.examples = 12_800_000_000
    config.data.batch_size = 32_768
    config.data.augmentation.area = (0.9, 1.0)  # open_clip's default
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.text.update(CLIP_TEXT)
    towers = dict(
        norm_epsilon=1e-5,
        activation="quick_gelu",
        initialization="clip",
        scan=True,
        rematerialisation="full",
    )
    config.model.image.update(
        towers, pooling="cls", embedding_norm=True, patch_bias=False, initialization="torch"
    )
    config.model.text.update(towers, vocab_size=49408, length=77, causal=True, pooling="end")
    config.objectives = dict(contrastive=dict(kind="clip", implementation="ring"))
    config.optimizer.update(
        learning_rate=5e-4,
        b1=0.9,
        b2=0.98,
        epsilon=1e-6,
        weight_decay=0.2,
        decay_multipliers=((r"(bias|scale|class_token)$", 0.0),),
    )
    config.optimizer.schedule.update(kind="cosine", warmup=2000.0)
    config.precision.compute = "bfloat16"
    return as_recipe(config)


def siglip() -> ml_collections.ConfigDict:
    """The settings shared by SigLIP's models (Zhai et al. 2023).

    Batch 32,768, learning rate 1e-3, weight decay 1e-4, b2 0.95, SentencePiece of 32,000 tokens,
    length 64, MAP pooling. Text length, activation and pooling are those of the released
    checkpoints.

    As in big_vision:
    - Weight decay is multiplied by the schedule and not by the learning rate (optax.py); 1e-4
      equals 0.1 in AdamW's convention. Only kernels decay.
    - Token and position embeddings of the text are initialised with a standard deviation of
      width^-1/2 (models/proj/image_text/text_transformer.py).
    - Images are resized bilinearly (the processors of the released weights: bicubically).

    Differences from big_vision:
    - Images are resized with antialiasing (there: without, by the default of TF's `resize`).
    - The scale is kept between 1 and 1e6 (there: no bounds).
    - Pairs that share a caption or an image are positives (there: only the pair itself).
    - Its one public example, siglip_lit_coco.py, has weight decay 0.01, a bias of -2.71, a locked
      image tower, flips and RandAugment.

    Not confirmed from public code: AdamW (not Adafactor), and the warm-up, here 2% of the run.
    """
    config = base()
    config.examples = 9_000_000_000
    config.data.batch_size = 32_768
    config.data.images.update(
        resize="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    config.data.train.source = WEB_SOURCE
    config.data.images.transparency = "drop"
    config.data.text.update(
        tokenizer="google/siglip-base-patch16-224",
        start_token=None,
        end_token="</s>",
        padding_token="</s>",
        canonicalize=("lower_case", "punctuation", "whitespace"),
    )
    towers = dict(norm_epsilon=1e-6, activation="gelu_tanh", scan=True, rematerialisation="full")
    config.model.image.update(towers, pooling="map", projection="none")
    config.model.text.update(
        towers,
        preset="B",
        vocab_size=32_000,
        length=64,
        causal=False,
        padding_mask=False,
        pooling="last",
        projection="linear_with_bias",
        word_std=768**-0.5,
        position_std=768**-0.5,
    )
    config.objectives = dict(contrastive=dict(kind="siglip", implementation="ring"))
    config.optimizer.update(
        learning_rate=1e-3, b1=0.9, b2=0.95, weight_decay=1e-4, clip_norm=1.0, **BIG_VISION_DECAY
    )
    config.optimizer.schedule.update(kind="cosine", warmup=0.02)
    config.precision.compute = "bfloat16"
    return as_recipe(config)


# OpenCLIP's text cleaning and token ids; its padding id 0 is the token "!".
CLIP_TEXT = dict(
    tokenizer="embedded:clip",
    canonicalize=("ftfy", "html", "lower_case", "whitespace"),
    start_token="<|startoftext|>",
    end_token="<|endoftext|>",
    padding_token="!",
)
BIG_VISION_DECAY = dict(
    decay_coupling="schedule", decay_multipliers=((r"kernel$", 1.0), (r".*", 0.0))
)
# The operations of RandAugment in ALBEF and BLIP, each applied half of the time.
ALBEF_OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
)
NO_DROPOUT = dict(dropout=0.0, attention_dropout=0.0, mlp_dropout=0.0)
SMOKE_EMA = 0.9  # with a larger decay, an EMA over 42 steps is close to the initial parameters
EMBEDDED_VOCABULARY = 4096
WITH_MASK_TOKEN = EMBEDDED_VOCABULARY + 8
# Public weights that several recipes start from.
BERT_BASE = "huggingface:google-bert/bert-base-uncased"
DEIT_BASE = "timm:timm/deit_base_patch16_224.fb_in1k"
WEB_SOURCE = "webdataset:/data/pairs/{00000..41407}.tar"  # a placeholder to be overridden


def smoke(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same experiment reduced to run on a laptop's CPU with the embedded data.

    Each section is in its smoke form: two narrow layers per tower, small images. There are 42
    steps, all of them logged, a checkpoint every 7, and an EMA over about the last ten. What
    defines the experiment (objectives, pooling, norms, activations, schedule kind, optimizer kind,
    precision, scan, rematerialisation) is unchanged.
    """
    sizes = Sizes(
        width=64,
        depth=2,
        heads=4,
        mlp_dim=256,
        batch_size=64,
        vocab_size=EMBEDDED_VOCABULARY,
        length=24,
    )
    reduce_sections(config, "smoke", sizes)
    config.update(steps=42, examples=None, epochs=None, log_every=1)
    config.data.update(batch_size=sizes.batch_size, workers=0)
    config.data.train.update(source="embedded:emoji/train", mixture={})
    config.data.images.transparency = "composite"
    config.data.text = embedded_text(config.data.text)
    config.optimizer.learning_rate = 1e-3
    if config.ema is not None:
        config.ema = min(config.ema, SMOKE_EMA)
    config.optimizer.schedule.update(warmup=0.1, decay=0.1)
    config.checkpoint.update(every_steps=7, every_minutes=None, keep=2)
    config.evaluators = dict(val_vendor=dict(tasks=("retrieval", "zero_shot")))
    return config


def on_emoji(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same experiment on the embedded data, for minutes on a laptop's CPU, as in `small`
    variants.

    It is meant to learn, and not only to run. Each section is in its small form: narrow towers, and
    images of 32 x 32 pixels except for an Inception-v3. The input is that of clip_emoji.py.
    """
    sizes = Sizes(
        width=128,
        depth=2,
        heads=4,
        mlp_dim=384,
        batch_size=64,
        vocab_size=EMBEDDED_VOCABULARY,
        length=16,
    )
    reduce_sections(config, "small", sizes)
    config.update(steps=500, examples=None, epochs=None, log_every=25)
    config.data.update(batch_size=sizes.batch_size, workers=0)
    config.data.train.update(source="embedded:emoji/train", mixture={})
    config.data.text = embedded_text(config.data.text)
    config.data.images.update(
        transparency="composite",
        crop_to_content=True,
        content_margin=0.04,
        resize="squash",
        interpolation="bilinear",
        mean=(0.5,) * 3,
        std=(0.3,) * 3,
    )
    config.data.augmentation = to_tree(
        AugmentationConfig(
            background="random",
            rotation=8.0,
            scale=(0.9, 1.25),
            shift=0.04,
            aspect=0.1,
            brightness=0.2,
            contrast=0.2,
            saturation=0.3,
        )
    )
    config.precision.compute = "float32"
    config.optimizer.update(
        kind="muon",
        learning_rate=4e-3,
        b1=0.95,
        b2=0.95,
        epsilon=1e-8,
        weight_decay=0.1,
        clip_norm=1.0,
        lr_multipliers=(),
    )
    config.optimizer.schedule.update(kind="cosine", warmup=0.05)
    config.checkpoint.update(every_steps=500, every_minutes=None, keep=2)
    config.evaluators = dict(val_vendor=dict(tasks=("retrieval",)))
    return config


def embedded_text(text: ml_collections.ConfigDict) -> dict:
    """The embedded tokenizer, with the text changes and the truncation of `text`."""
    return to_tree(
        TextConfig(canonicalize=tuple(text.canonicalize), truncation_side=text.truncation_side)
    )


def reduce_sections(
    config: ml_collections.ConfigDict, form: Literal["smoke", "small"], sizes: Sizes
) -> None:
    """Replaces each section of a config by its smoke or small form, with all keys of the section.

    Raises: ConfigError, or ConfigErrors, for an invalid key or value.
    """
    root = root_section()
    experiment = read_section(root, settle(config).to_dict(), "")
    if any(
        getattr(objective, form)(sizes).needs_mask_token
        for objective in experiment.objectives.values()
    ):
        sizes = dataclasses.replace(sizes, vocab_size=WITH_MASK_TOKEN)
    for field in dataclasses.fields(root):
        config[field.name] = to_tree(reduced_value(getattr(experiment, field.name), form, sizes))


def reduced_value(value: Any, form: str, sizes: Sizes) -> Any:
    """A section, or the sections of a mapping, in a form of `reduce_sections`, with all sections
    inside; else `value`."""
    if isinstance(value, dict):
        return {name: reduced_value(entry, form, sizes) for name, entry in value.items()}
    if not isinstance(value, Section):
        return value
    parts = {
        field.name: reduced_value(getattr(value, field.name), form, sizes)
        for field in dataclasses.fields(value)
    }
    return getattr(dataclasses.replace(value, **parts), form)(sizes)
