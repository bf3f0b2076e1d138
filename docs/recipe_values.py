"""What a config says, row by row, in the words of docs/recipes.md.

Nothing here is typed in: all is read from the parsed config.
"""

import dataclasses

from effective_decay import taken

from vlp_jax.data.images.config import AugmentationConfig
from vlp_jax.data.images.randaugment import RANDAUGMENT
from vlp_jax.experiment import Experiment
from vlp_jax.models.stack import StackConfig
from vlp_jax.models.vision.resnet import ResNetConfig
from vlp_jax.models.vision.vgg import VggConfig
from vlp_jax.objectives.masked_language import MaskedTextConfig
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.training.optimizers.base import OptimizerConfig
from vlp_jax.training.optimizers.sgd import SgdConfig

NONE = "none"
KINDS = (
    "kernels",
    "words",
    "positions",
    "learned tokens",
    "types",
    "probes",
    "norms",
    "biases",
    "the scale",
)
PARTS = ("image", "text", "fusion", "decoder", "heads")


def number(value: float) -> str:
    """0 or 1e-4, 1.5e-5, with at most three digits."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def values(config: Experiment) -> dict[str, str]:
    """{row: what the config says}, in the order of docs/recipes.md."""
    found, relative = taken(plain(config))
    return dict(
        decay=decay(config, found, relative),
        **{row: value(config) for row, value in ROWS.items()},
        initialisation=initialisation(config, {part_of(path) for path in found}),
    )


def decay(config: Experiment, found: dict[str, float], relative: float) -> str:
    """What an update at the schedule's highest takes of each kind of parameter, as a fraction of
    it. found, relative: `taken`."""
    if not config.optimizer.weight_decay:
        return NONE
    shares: dict[str, dict[str, set[str]]] = {}
    for path, share in found.items():
        shares.setdefault(kind_of(path), {}).setdefault(number(share / relative), set()).add(
            part_of(path)
        )
    groups: dict[str, list[str]] = {}
    for kind in (kind for kind in KINDS if kind in shares):
        for share, parts in shares[kind].items():
            of = (
                f" of {' and '.join(part for part in PARTS if part in parts)}"
                if len(shares[kind]) > 1
                else ""
            )
            groups.setdefault(share, []).append(kind + of)
    return "; ".join(
        f"{share}: {', '.join(groups[share])}" for share in sorted(groups, key=float, reverse=True)
    )


def plain(config: Experiment) -> Experiment:
    """The same rules for stacks of one layer, and without moments, which a gradient of 0 does not
    move."""

    def shallow(stack):
        if isinstance(stack, StackConfig):
            return dataclasses.replace(
                stack,
                depth=0 if stack.depth == 0 else 1,
                scan=False,
                rematerialisation="none",
                saved=(),
            )
        if isinstance(stack, ResNetConfig):
            return dataclasses.replace(stack, blocks=(1, 1, 1, 1), rematerialisation="none")
        return stack

    model = dataclasses.replace(
        config.model,
        **{
            name: shallow(getattr(config.model, name))
            for name in ("image", "text", "fusion", "decoder")
        },
    )
    shared = {
        field.name: getattr(config.optimizer, field.name)
        for field in dataclasses.fields(OptimizerConfig)
    }
    optimizer = SgdConfig(**shared | {"momentum": 0.0, "clip_norm": None})
    return dataclasses.replace(config, model=model, optimizer=optimizer)


def kind_of(path: str) -> str:
    """Which of KINDS a parameter is, by the end of its path."""
    name = path.rpartition("/")[2]
    endings = {
        "bias": "biases",
        "position": "positions",
        "token": "learned tokens",
        "type": "types",
        "probe": "probes",
    }
    exact = {
        "embedding": "words",
        "tokens": "words",
        "output": "words",
        "table": "words",
        "token_type": "types",
        "scale": "norms",
        "log_scale": "the scale",
        "temperature": "the scale",
    }
    return exact.get(name) or next(
        (kind for ending, kind in endings.items() if name.endswith(ending)), "kernels"
    )


def part_of(path: str) -> str:
    """Which of PARTS a parameter belongs to; a projection to its tower."""
    return next((part for part in PARTS if path.startswith(f"model/{part}")), "heads")


def warmup(config: Experiment) -> str:
    """The length of the warm-up."""
    length = config.optimizer.schedule.warmup
    if not length:
        return NONE
    return f"{100 * length:.3g}% of the run" if length < 1 else f"{round(length):,} updates"


def schedule(config: Experiment) -> str:
    """The learning rate behind the warm-up."""
    it = config.optimizer.schedule
    final = getattr(it, "final", 0.0)  # of the kinds that have an end
    end = f"{final:.3g} of the peak" if final else "0"
    if it.kind == "exponential":
        period = f"{100 * it.period:.3g}% of the run" if it.period < 1 else f"{it.period:g} updates"
        return f"x {it.factor:g} every {period}" + (f", at least {end}" if final else "")
    if it.kind == "warmup_stable_decay":
        return f"constant, linear to {end} over the last {100 * it.decay:.3g}% of the run"
    return it.kind if it.kind == "constant" else f"{it.kind} to {end}"


def temperature(config: Experiment) -> str:
    """The learned scale of cosines, or its inverse."""
    for objective in config.objectives.values():
        if hasattr(objective, "scale_parameter"):
            low, start, high = (
                objective.minimum_scale,
                objective.initial_scale,
                objective.maximum_scale,
            )
            if objective.scale_parameter == "temperature":
                return (
                    f"the temperature itself, from {1 / start:.3g}, within {1 / high:.3g} and "
                    f"{1 / low:.3g}"
                )
            bias = (
                f" and bias {objective.initial_bias:g}"
                if hasattr(objective, "initial_bias")
                else ""
            )
            return (
                f"the scale's logarithm, from scale {start:.3g}{bias}, within {low:g} and {high:g}"
            )
    return NONE


def positives(config: Experiment) -> str:
    """Which pairs of a batch are positives of a contrastive loss."""
    for objective in config.objectives.values():
        if hasattr(objective, "positives"):
            return (
                "pairs that share a " + " or ".join(objective.positives)
                if objective.positives
                else "the pair itself"
            )
    return NONE


def dropout(config: Experiment) -> str:
    """Rates of dropout by part of the model."""
    rates: dict[str, list[str]] = {}
    for part in ("image", "text", "fusion", "decoder"):
        section = getattr(config.model, part)
        names = dict(
            dropout="hidden",
            attention_dropout="attention",
            mlp_dropout="MLP",
            stochastic_depth="stochastic depth",
        )
        unused = isinstance(section, VggConfig) and section.pooling != "hidden"
        found = [
            f"{name} {getattr(section, key):g}"
            for key, name in names.items()
            if getattr(section, key, 0) and not unused
        ]
        if found:
            rates.setdefault(", ".join(found), []).append(part)
    for objective in config.objectives.values():
        if getattr(objective, "dropout", 0):
            rates.setdefault(f"hidden {objective.dropout:g}", []).append("head")
    return "; ".join(f"{', '.join(parts)}: {rate}" for rate, parts in rates.items()) or NONE


def masking(config: Experiment) -> str:
    """Which words are hidden, and which patches hidden or left out."""
    found = {}
    for objective in config.objectives.values():
        if isinstance(objective, MaskedTextConfig):
            what = "words, whole" if objective.whole_words else "tokens"
            found[
                f"{100 * objective.rate:g}% of {what}"
                + ("" if objective.keep_last else ", the end token among them")
            ] = None
        if hasattr(objective, "image_rate"):
            found[
                f"{100 * objective.image_rate:g}% of patches, in blocks of at least "
                f"{objective.smallest_block}"
            ] = None
        if hasattr(objective, "mask_ratio"):
            found[f"{100 * objective.mask_ratio:g}% of patches"] = None
    if getattr(config.model.image, "token_drop", 0):
        found[f"{100 * config.model.image.token_drop:g}% of patches left out"] = None
    return "; ".join(found) or NONE


def wrong_pairs(config: Experiment) -> str:
    """What matching is asked about."""
    for objective in config.objectives.values():
        if isinstance(objective, MatchingConfig):
            scale = (
                "the learned scale"
                if objective.negative_scale is None
                else f"scale {objective.negative_scale:.3g}"
            )
            floor = (
                f", probabilities + {number(objective.negative_floor)}"
                if objective.negative_floor
                else ""
            )
            drawn = (
                f"by similarity at {scale}{floor}"
                if objective.negatives == "similar"
                else "uniformly"
            )
            which = {
                "both": "a wrong image and a wrong text",
                "text": "a wrong text",
                "image": "a wrong image",
            }[objective.negatives_from]
            share = (
                "each pair, and"
                if objective.negative_rate is None
                else f"{100 * objective.negative_rate:g}% of pairs"
            )
            return f"{share} with {which}, drawn {drawn}"
    return NONE


def augmentation(config: Experiment) -> str:
    """Random changes to a training image, its views, and how it is resized."""
    images, views = config.data.images, config.data.view_augmentation
    sizes = {
        "shortest_side_crop": "shorter side resized, centre crop",
        "squash": "both sides resized",
        "letterbox": "padded",
    }
    mine = changes(config.data.augmentation) + [sizes[images.resize]] * (
        config.data.augmentation.area is None
    )
    views = f"; two more views: {', '.join(changes(views))}" if views is not None else ""
    return ", ".join([*mine, images.interpolation]) + views


def changes(it: AugmentationConfig) -> list[str]:
    """The changes that are switched on, in the order in which they are made."""
    found = (
        [f"crops of {100 * it.area[0]:g}% to {100 * it.area[1]:g}% of the area"] if it.area else []
    )
    found += [f"flips {it.flip:g}"] if it.flip else []
    if it.randaugment.operations:
        found.append(
            f"RandAugment: {it.randaugment.operations} of "
            f"{len(it.randaugment.names or RANDAUGMENT)} operations, each with "
            f"probability {it.randaugment.probability:g}, magnitude "
            f"{it.randaugment.magnitude / 30:g}"
        )
    names = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur", "erase")
    return found + [f"{name} {getattr(it, name):g}" for name in names if getattr(it, name)]


def cleaning(config: Experiment) -> str:
    """Changes to a caption before it is tokenized."""
    return ", ".join(config.data.text.canonicalize) or NONE


def initialisation(config: Experiment, present: set[str]) -> str:
    """First values of the stacks of transformer layers. present: the parts of the model that have
    parameters in this run."""
    found: dict[str, list[str]] = {}
    for part in ("image", "text", "fusion", "decoder"):
        section = getattr(config.model, part)
        shared = getattr(section, "kind", None) == "in_text_tower"
        if isinstance(section, StackConfig) and part in present and not shared:
            words = (
                f", words {section.word_std:.3g}, positions {section.position_std:.3g}"
                if part == "text"
                else ""
            )
            found.setdefault(section.initialization + words, []).append(part)
    return "; ".join(f"{', '.join(parts)}: {values}" for values, parts in found.items()) or NONE


ROWS = {
    "warm-up": warmup,
    "schedule": schedule,
    "temperature": temperature,
    "positives": positives,
    "dropout": dropout,
    "masking": masking,
    "wrong pairs": wrong_pairs,
    "augmentation": augmentation,
    "text cleaning": cleaning,
}
NAMES = ("decay", *ROWS, "initialisation")
