"""Smoke and small variants: each section in its own smaller form, and what a recipe sets for
all."""

import dataclasses
from typing import Literal

import pytest

from vlp_jax.config import base, clip, to_config, variant_of
from vlp_jax.config.fields import section
from vlp_jax.config.recipes import EMBEDDED_VOCABULARY, WITH_MASK_TOKEN, on_emoji, reduced_value
from vlp_jax.config.section import Section, Sizes
from vlp_jax.errors import ConfigError
from vlp_jax.models.decoder.recurrent import GruDecoderConfig
from vlp_jax.models.vision.vgg import VggConfig

SIZES = Sizes(
    width=64,
    depth=2,
    heads=4,
    mlp_dim=256,
    batch_size=64,
    vocab_size=EMBEDDED_VOCABULARY,
    length=24,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Section):
    width: int = 512
    pooling: Literal["mean", "max"] = "mean"

    def smoke(self, sizes):
        return dataclasses.replace(self, width=sizes.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Section):
    parts: dict[str, Inner] = section(dict)
    depth: int = 12

    def smoke(self, sizes):
        return dataclasses.replace(self, depth=sizes.depth)


def test_a_section_and_all_sections_in_it_are_reduced():
    whole = Outer(parts={"a": Inner(pooling="max"), "b": Inner(width=2)})
    reduced = Outer(parts={"a": Inner(pooling="max", width=64), "b": Inner(width=64)}, depth=2)
    assert reduced_value(whole, "smoke", SIZES) == reduced == reduced_value(whole, "small", SIZES)


def test_parts_of_a_model_are_in_their_smoke_form_and_the_rest_is_as_it_was():
    config = clip()
    config.model.image = dict(kind="vgg", norm="batch")
    config.model.decoder = dict(kind="gru", dropout=0.5)
    config.objectives.captioning = dict(kind="captioning")
    model = to_config(variant_of(config, "smoke").to_dict()).model
    assert model.image == VggConfig(norm="batch").smoke(
        SIZES
    ) and model.decoder == GruDecoderConfig(dropout=0.5).smoke(SIZES)
    assert (model.embedding_dim, model.text.vocab_size, model.text.length, model.text.scan) == (
        64,
        EMBEDDED_VOCABULARY,
        24,
        True,
    )


@pytest.mark.parametrize("variant", ["smoke", "small"])
def test_the_vocabulary_has_a_mask_token_where_an_objective_needs_one(variant):
    config = clip()
    config.model.text.update(causal=False, pooling="first")
    config.objectives.words = dict(kind="masked_language", with_image=False, mask_id=5)
    reduced = to_config(variant_of(config, variant, on_emoji).to_dict())
    assert (
        reduced.model.text.vocab_size == WITH_MASK_TOKEN
        and reduced.objectives["words"].mask_id is None
    )


def test_a_mistake_in_a_config_is_named_in_its_variants_too():
    config = base()
    config.update(steps=1, objectives=dict(contrastive=dict(kind="clip")))
    config.model.image.depht = 3
    with pytest.raises(
        ConfigError,
        match=r"model.image.depht: unknown key \(did you mean "
        r"'depth'\?\)",
    ):
        variant_of(config, "smoke")
