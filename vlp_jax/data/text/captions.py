"""The text of a sample in a training step: drawn from its captions and keywords by the weights of
the config."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vlp_jax.config.fields import between, section
from vlp_jax.config.section import Section
from vlp_jax.data.samples import NO_CAPTION, Reason, Sample, SampleError
from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextsConfig(Section):
    """The choice of a sample's text. Weights are relative."""

    caption: float = between(1.0, 0.0)  # one of its captions
    # a caption followed by some of its keywords in random order
    caption_and_keywords: float = between(0.0, 0.0)
    keywords: float = between(0.0, 0.0)  # keywords only
    # field: weight of its captions; empty: all captions equally
    caption_fields: dict[str, float] = section(dict)
    prompts: tuple[str, ...] = ("{}",)  # one is drawn; {} is replaced by the text


def draw_caption(sample: Sample, fields: Mapping[str, float], rng: np.random.Generator) -> str:
    """One of the captions of a sample.

    Args:
      sample: the sample.
      fields: weights of caption fields. A field is drawn first, by its weight among those that the
        sample has. Empty: all captions are equally likely.
      rng: source of the draws.

    Raises:
      SampleError: if the sample has no caption, or none in a field with a weight.
    """
    if not sample.captions:
        raise SampleError(Reason.MISSING_CAPTION, sample.key, NO_CAPTION)
    if not fields:
        return sample.captions[int(rng.integers(len(sample.captions)))]
    present = [name for name in dict.fromkeys(sample.caption_fields) if fields.get(name, 0.0) > 0.0]
    if not present:
        found = ", ".join(dict.fromkeys(sample.caption_fields))
        raise SampleError(
            Reason.MISSING_CAPTION,
            sample.key,
            "has no caption in "
            f"{', '.join(fields)} "
            "(caption_fields), only in "
            f"{found}; name its fields in the source: ?caption=FIELD|FIELD",
        )
    weights = np.array([fields[name] for name in present])
    field = present[int(rng.choice(len(present), p=weights / weights.sum()))]
    captions = [
        caption
        for caption, name in zip(sample.captions, sample.caption_fields, strict=True)
        if name == field
    ]
    return captions[int(rng.integers(len(captions)))]


def draw_text(caption: str, sample: Sample, texts: TextsConfig, rng: np.random.Generator) -> str:
    """`caption`, `caption` with some of the sample's keywords, or keywords alone, in one of the
    prompts."""
    text = _with_keywords(caption, sample, texts, rng)
    prompts = texts.prompts
    prompt = prompts[0] if len(prompts) == 1 else prompts[int(rng.integers(len(prompts)))]
    return prompt.replace("{}", text)


def _with_keywords(
    caption: str, sample: Sample, texts: TextsConfig, rng: np.random.Generator
) -> str:
    """The drawn combination of caption and keywords; the caption for a sample without keywords."""
    keywords = sample.metadata.get("keywords") or []
    kinds = np.array([texts.caption, texts.caption_and_keywords, texts.keywords])
    if not keywords or not isinstance(keywords, (list, tuple)):
        return caption
    kind = rng.choice(3, p=kinds / kinds.sum())
    if kind == 0:
        return caption
    chosen = [
        str(keywords[i])
        for i in rng.permutation(len(keywords))[: rng.integers(1, len(keywords) + 1)]
    ]
    return ", ".join(([caption] if kind == 1 else []) + chosen)


def check_texts(texts: TextsConfig, place: str) -> None:
    """Checks the text options of a source.

    Args:
      texts: the options.
      place: their key in messages.

    Raises:
      ConfigError: naming the key, for weights that leave no text, for missing prompts, and for a
        prompt without {}.
    """
    if texts.caption + texts.caption_and_keywords + texts.keywords <= 0:
        raise ConfigError(
            f"{place}.caption, caption_and_keywords, keywords: at least one weight must be above 0"
        )
    weights = texts.caption_fields.values()
    if weights and (min(weights) < 0 or sum(weights) <= 0):
        raise ConfigError(
            f"{place}.caption_fields: weights are at least 0, and one of them above "
            f"0; got {texts.caption_fields}"
        )
    if not texts.prompts:
        raise ConfigError(f"{place}.prompts: at least one is needed; '{{}}' is the text itself")
    for prompt in texts.prompts:
        if "{}" not in prompt:
            raise ConfigError(f"{place}.prompts: {prompt!r} has no {{}} for the text")
