"""Towers, fusions and decoders as they declare themselves: what does not fit, what has no effect,
sizes, smaller forms."""

import dataclasses

import pytest

from vlp_jax.config.section import Sizes
from vlp_jax.data.config import DataConfig
from vlp_jax.data.text.tokenizer import TextConfig
from vlp_jax.errors import ConfigError
from vlp_jax.experiment import Experiment
from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.decoder.in_text_tower import InTextTowerDecoderConfig
from vlp_jax.models.decoder.recurrent import GruDecoderConfig, LstmDecoderConfig
from vlp_jax.models.decoder.transformer import OnTextTowerDecoderConfig, TextDecoderConfig
from vlp_jax.models.fusion.attention import (
    CoAttentionConfig,
    CrossAttentionConfig,
    MergedAttentionConfig,
)
from vlp_jax.models.fusion.base import FusionConfig
from vlp_jax.models.fusion.graph_fusion import GraphFusionConfig
from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.fusion.pooled import GatedSumConfig
from vlp_jax.models.options import Precision
from vlp_jax.models.shapes import Grid
from vlp_jax.models.text.recurrent import BagOfWordsConfig, BidirectionalLstmConfig, GruConfig
from vlp_jax.models.text.tower import TextTowerConfig
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.inception import InceptionConfig
from vlp_jax.models.vision.resnet import ResNetConfig
from vlp_jax.models.vision.tower import ImageTowerConfig
from vlp_jax.models.vision.vgg import VggConfig
from vlp_jax.models.vision.vit import ViTConfig

SIZES = Sizes(width=64, depth=2, heads=4, mlp_dim=256, batch_size=8, vocab_size=4096, length=24)
SEEN = TextTransformerConfig(causal=False, pooling="first")
BASES = (ImageTowerConfig, TextTowerConfig, FusionConfig, DecoderConfig)
PLAIN = DataConfig(text=TextConfig(start_token=None))


def problems(data=None, **parts):
    """The problems of the last of these parts of a model."""
    model = ModelConfig(**parts)
    experiment = Experiment(steps=1, model=model, data=data or DataConfig())
    return [*[*parts.values()][-1].validate(f"model.{[*parts][-1]}", experiment)]


def built(part, model):
    return part.build(
        *([model.shapes()] if isinstance(part, FusionConfig | DecoderConfig) else []), Precision()
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            dict(image=ViTConfig(image_size=30)),
            "model.image: image_size 30 does not divide into patches of 16",
        ),
        (dict(image=ViTConfig(preset="B")), "model.image.patch_size: is not set"),
        (dict(image=ViTConfig(preset="X/16")), "model.image.preset: unknown size 'X'"),
        (
            dict(image=ViTConfig(pooling="none")),
            "model.image.pooling: 'none' leaves nothing to embed",
        ),
        (
            dict(image=ViTConfig(stem="convolution")),
            "model.image.stem_channels: needs one entry for each of stem_strides",
        ),
        (
            dict(image=ViTConfig(width=18, heads=2, mlp_dim=8, position="sincos2d")),
            "model.image.position: 'sincos2d' needs a width",
        ),
        (
            dict(image=ResNetConfig(depth=20)),
            "model.image.depth: must be one of 18, 34, 50, 101, 152 for a ResNet, got 20",
        ),
        (dict(image=ResNetConfig(stem_size=4)), "model.image.stem_size: must be odd, got 4"),
        (
            dict(image=ResNetConfig(clip=True, depth=18)),
            "model.image.depth: CLIP's ResNets are made of bottlenecks",
        ),
        (
            dict(image=VggConfig(depth=12)),
            "model.image.depth: must be one of 11, 13, 16, 19 for a VGG, got 12",
        ),
        (
            dict(image=VggConfig(image_size=31)),
            "model.image.image_size: 31 leaves nothing behind a VGG's 5 halvings",
        ),
        (dict(image=InceptionConfig(width=3)), "model.image.width: 3 is odd"),
        (
            dict(image=InceptionConfig(image_size=74)),
            "model.image.image_size: 74 leaves nothing behind an Inception-v3's strides",
        ),
        (
            dict(text=TextTransformerConfig(pooling="cls")),
            "model.text.pooling: 'cls' precedes the text",
        ),
        (
            dict(text=BidirectionalLstmConfig(width=5)),
            "model.text.width: 5 is odd, and each direction of 'bidirectional_lstm'",
        ),
        (
            dict(text=GruConfig(), fusion=InTextTowerConfig()),
            "model.text.kind: 'gru' has no "
            "transformer's layers, which "
            "model.fusion.kind='in_text_tower' needs",
        ),
        (
            dict(fusion=CoAttentionConfig(scan=True)),
            "model.fusion.scan: two streams that read each other are not scanned",
        ),
        (
            dict(fusion=CrossAttentionConfig(width=10)),
            "model.fusion.width: 10 does not go with heads of width 64",
        ),
        (
            dict(fusion=GraphFusionConfig(width=8, heads=3)),
            "model.fusion: width 8 does not divide into 3 heads",
        ),
        (
            dict(fusion=GraphFusionConfig(regions="boxes")),
            "model.fusion.regions: 'boxes' needs data.boxes",
        ),
        (
            dict(text=SEEN, decoder=OnTextTowerDecoderConfig(tied=False)),
            "model.decoder.kind: 'on_text_tower' needs model.text.causal",
        ),
        (
            dict(decoder=OnTextTowerDecoderConfig()),
            "model.decoder.tied: True is for kind='transformer', which reads words itself",
        ),
        (
            dict(text=BagOfWordsConfig(), decoder=InTextTowerDecoderConfig()),
            "model.text.kind: 'bag' has no transformer's layers",
        ),
        (
            dict(decoder=TextDecoderConfig(image="none", image_queries=3)),
            "model.decoder.image_queries: have nothing to pool",
        ),
    ],
)
def test_what_does_not_fit_is_a_problem_of_the_config_and_an_error_when_built(parts, message):
    found = problems(**parts)
    assert len(found) == 1 and found[0].startswith(message)
    model = ModelConfig(**parts)
    if "boxes" not in message:  # which are not the model's
        with pytest.raises(ConfigError, match=message.split("'")[0]):
            built([*parts.values()][-1], model)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (dict(image=ViTConfig(saved=("query",))), "saved"),
        (dict(image=ViTConfig(rematerialisation="save_names")), "rematerialisation"),
        (dict(image=ResNetConfig(groups=8)), "groups"),
        (dict(image=ResNetConfig(heads=4)), "heads"),
        (dict(image=ResNetConfig(clip=True, stem_size=3)), "stem_size"),
        (dict(image=VggConfig(norm="group", dropout=0.1)), "dropout"),
        (dict(text=TextTransformerConfig(word_overlap=0.2)), "word_overlap"),
        (dict(text=GruConfig(word_overlap=0.2)), "word_overlap"),
        (dict(fusion=MergedAttentionConfig(saved=("query",))), "saved"),
        (dict(fusion=GraphFusionConfig(box_neighbours="all")), "box_neighbours"),
        (dict(decoder=TextDecoderConfig(saved=("query",))), "saved"),
        (dict(decoder=LstmDecoderConfig(attention_width=8)), "attention_width"),
    ],
)
def test_what_has_no_effect_is_named(parts, key):
    name = [*parts][-1]
    (found,) = problems(**parts)
    assert found.startswith(f"model.{name}.{key}: has no effect ")


@pytest.mark.parametrize(
    "part", [dict(fusion=InTextTowerConfig()), dict(decoder=InTextTowerDecoderConfig())]
)
def test_a_start_token_takes_the_place_of_one(part):
    name, declaration = next(iter(part.items()))
    message = (
        f"model.{name}.start_token: has no effect without data.text.start_token, whose "
        "place it takes"
    )
    assert problems(data=PLAIN, text=SEEN, **part) == [message]
    assert (
        problems(
            data=PLAIN, text=SEEN, **{name: dataclasses.replace(declaration, start_token=False)}
        )
        == []
    )
    assert problems(text=SEEN, **part) == []


def test_a_tower_without_projection_has_the_width_of_the_shared_space():
    model = ModelConfig(image=ViTConfig(projection="none"), embedding_dim=100)
    message = (
        "model.image.projection: 'none' needs width 100 (model.embedding_dim), the tower has 768"
    )
    assert [*model.validate("model", Experiment(steps=1, model=model))] == [message]
    assert (
        ModelConfig(image=ViTConfig(projection="none"), embedding_dim=768).shapes().embedding_dim
        == 768
    )


def test_the_problem_of_a_tower_is_no_problem_of_the_parts_on_it():
    assert problems(image=ViTConfig(image_size=30), fusion=GatedSumConfig()) == []
    assert problems(text=TextTransformerConfig(preset="X"), decoder=TextDecoderConfig()) == []


def test_shapes_are_what_the_parts_need_of_the_towers():
    shapes = ModelConfig(
        image=ViTConfig(registers=3, token_drop=0.5),
        text=TextTransformerConfig(pooling="cls_end"),
        embedding_dim=100,
    ).shapes(batch=7)
    assert (shapes.embedding_dim, shapes.batch) == (100, 7)
    assert (
        shapes.image.grid == Grid(14, 1, 3)
        and shapes.image.tokens == 200
        and shapes.image.class_token
    )
    assert (shapes.image.token_width, shapes.image.pooled_width, shapes.image.token_drop) == (
        768,
        768,
        0.5,
    )
    assert (
        shapes.text.tokens,
        shapes.text.layer_tokens,
        shapes.text.length,
        shapes.text.vocab_size,
    ) == (77, 78, 77, 49408)
    assert shapes.text.causal and shapes.text.layers_for("x", Precision()).causal
    shapes = ModelConfig(
        image=VggConfig(pooling="hidden"), text=GruConfig(embedding_width=30)
    ).shapes()
    assert (shapes.image.tokens, shapes.image.token_width, shapes.image.pooled_width) == (
        49,
        512,
        4096,
    )
    assert (shapes.text.token_width, shapes.text.word_width, shapes.text.layers) == (1024, 30, None)


def test_what_others_ask_of_a_fusion_and_a_decoder():
    shapes = ModelConfig().shapes()
    assert (CoAttentionConfig().fused_width(shapes), CoAttentionConfig().pooled_width(shapes)) == (
        768,
        1536,
    )
    assert InTextTowerConfig().fused_width(shapes) == 512 and InTextTowerConfig().encodes_text
    assert CrossAttentionConfig().returns_tokens and not GatedSumConfig().returns_tokens
    answer = (TextDecoderConfig(), GruDecoderConfig(image="attention"))
    others = (
        OnTextTowerDecoderConfig(),
        InTextTowerDecoderConfig(),
        GruDecoderConfig(),
        TextDecoderConfig(image="prefix"),
    )
    assert all(decoder.answers for decoder in answer) and not any(
        decoder.answers for decoder in others
    )
    assert (
        TextDecoderConfig(text_prefix=0.5).has_prefix
        and OnTextTowerDecoderConfig().reads_text_tower
    )


@pytest.mark.parametrize("form", ["smoke", "small"])
@pytest.mark.parametrize(("base", "kind"), [(base, kind) for base in BASES for kind in base.kinds])
def test_every_kind_has_smaller_forms_that_can_be_built(base, kind, form):
    fields = dict(tied=False) if kind == "on_text_tower" else {}
    part = getattr(base.of(kind, **fields), form)(SIZES)
    assert part.kind == kind and getattr(part, form)(SIZES) == part
    built(part, ModelConfig())


def test_a_stack_without_layers_stays_one_in_a_smoke_form_and_keeps_what_defines_it():
    tower = ViTConfig(preset="L/14", depth=0, pooling="map", scan=True).smoke(SIZES)
    assert (tower.depth, tower.pooling, tower.scan, tower.width, tower.image_size, tower.patch) == (
        0,
        "map",
        True,
        64,
        32,
        8,
    )
    tower = TextTransformerConfig(depth=0, length=10).smoke(SIZES)
    assert (tower.depth, tower.length, tower.vocab_size) == (0, 10, 4096)
    assert CrossAttentionConfig(depth=0).smoke(SIZES).depth == 2
