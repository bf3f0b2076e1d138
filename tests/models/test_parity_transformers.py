"""Our towers against transformers' CLIPModel and SiglipModel: golden files that
tests/golden/make_transformers.py wrote."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from safetensors.numpy import load_file

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.models.vision_language import VisionLanguageModel, project

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BOUND = 1e-5  # max|a-b| / max|b|, float32
PADDING = 59
IMAGE = dict(preset="Ti", width=32, depth=2, heads=4, mlp_dim=64, image_size=24, patch_size=8)
TEXT = dict(preset="Ti", width=24, depth=3, heads=3, mlp_dim=56, vocab_size=60, length=10)
CLIP, SIGLIP = (
    dict(activation="quick_gelu", norm_epsilon=1e-5),
    dict(activation="gelu_tanh", norm_epsilon=1e-6),
)


def clip_model(**stack):
    image = ViTConfig(
        **IMAGE,
        **CLIP,
        **stack,
        pooling="cls",
        embedding_norm=True,
        norm_before_pooling=False,
        patch_bias=False,
        projection="linear",
    )
    text = TextTransformerConfig(
        **TEXT, **CLIP, **stack, causal=True, padding_mask=True, pooling="end", projection="linear"
    )
    return VisionLanguageModel(ModelConfig(image=image, text=text, embedding_dim=20), Precision())


def siglip_model(**stack):
    image = ViTConfig(**IMAGE, **SIGLIP, **stack, pooling="map", projection="none")
    text = TextTransformerConfig(
        **TEXT,
        **SIGLIP,
        **stack,
        causal=False,
        padding_mask=False,
        pooling="last",
        projection="linear_with_bias",
    )
    return VisionLanguageModel(ModelConfig(image=image, text=text, embedding_dim=32), Precision())


class Mapping:
    """Takes each tensor out of a transformers checkpoint exactly once."""

    def __init__(self, tensors):
        self.tensors = dict(tensors)

    def norm(self, name):
        return {
            "scale": self.tensors.pop(f"{name}.weight"),
            "bias": self.tensors.pop(f"{name}.bias"),
        }

    def dense(self, name):
        bias = {"bias": self.tensors.pop(f"{name}.bias")} if f"{name}.bias" in self.tensors else {}
        return {"kernel": self.tensors.pop(f"{name}.weight").T, **bias}

    def mlp(self, name):
        return {"in": self.dense(f"{name}.fc1"), "out": self.dense(f"{name}.fc2")}

    def split_heads(self, dense, heads):
        return {
            "kernel": rearrange(dense["kernel"], "d (h k) -> d h k", h=heads),
            "bias": rearrange(dense["bias"], "(h k) -> h k", h=heads),
        }

    def attention_output(self, name, heads):
        dense = self.dense(name)
        return {
            "kernel": rearrange(dense["kernel"], "(h k) d -> h k d", h=heads),
            "bias": dense["bias"],
        }

    def stack(self, name, depth, heads):
        layers = {}
        for i in range(depth):
            layer = f"{name}.layers.{i}"
            attention = {
                ours: self.split_heads(self.dense(f"{layer}.self_attn.{theirs}_proj"), heads)
                for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"))
            }
            attention["out"] = self.attention_output(f"{layer}.self_attn.out_proj", heads)
            layers[f"layer_{i}"] = {
                "attention": attention,
                "attention_norm": self.norm(f"{layer}.layer_norm1"),
                "mlp_norm": self.norm(f"{layer}.layer_norm2"),
                "mlp": self.mlp(f"{layer}.mlp"),
            }
        return layers

    def map_head(self, name, heads):
        weights = np.split(self.tensors.pop(f"{name}.attention.in_proj_weight"), 3)
        biases = np.split(self.tensors.pop(f"{name}.attention.in_proj_bias"), 3)
        attention = {
            key: self.split_heads({"kernel": weight.T, "bias": bias}, heads)
            for key, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True)
        }
        attention["out"] = self.attention_output(f"{name}.attention.out_proj", heads)
        return {
            "probe": self.tensors.pop(f"{name}.probe"),
            "attention": attention,
            "mlp_norm": self.norm(f"{name}.layernorm"),
            "mlp": self.mlp(f"{name}.mlp"),
        }


def parameters_of(kind):
    """Our parameters from a checkpoint's tensors, all of them used up but for the objective's scale
    and bias."""
    take = Mapping(load_file(GOLDEN / f"{kind}_tiny.safetensors"))
    patches = "vision_model.embeddings.patch_embedding"
    kernel = rearrange(take.tensors.pop(f"{patches}.weight"), "d c p q -> (p q c) d")
    bias = {"bias": take.tensors.pop(f"{patches}.bias")} if kind == "siglip" else {}
    positions = take.tensors.pop("vision_model.embeddings.position_embedding.weight")
    image = {
        "patch_embedding": {"kernel": kernel, **bias},
        "norm": take.norm("vision_model.post_layernorm"),
        "transformer": take.stack("vision_model.encoder", IMAGE["depth"], IMAGE["heads"]),
    }
    text = {
        "tokens": {"embedding": take.tensors.pop("text_model.embeddings.token_embedding.weight")},
        "position": take.tensors.pop("text_model.embeddings.position_embedding.weight")[None],
        "norm": take.norm("text_model.final_layer_norm"),
        "transformer": take.stack("text_model.encoder", TEXT["depth"], TEXT["heads"]),
    }
    if kind == "clip":
        class_token = take.tensors.pop("vision_model.embeddings.class_embedding")[None, None]
        image |= {
            "class_token": class_token,
            "class_position": positions[None, :1],
            "position": positions[None, 1:],
            "embedding_norm": take.norm("vision_model.pre_layrnorm"),
        }
        projections = {
            "image_projection": take.dense("visual_projection"),
            "text_projection": take.dense("text_projection"),
        }
    else:
        image |= {
            "position": positions[None],
            "pooling_head": take.map_head("vision_model.head", IMAGE["heads"]),
        }
        projections = {"text_projection": take.dense("text_model.head")}
    assert set(take.tensors) <= {"logit_scale", "logit_bias"}
    return {"image": image, "text": text, **projections}


def stacked(params):
    """Parameters of the unrolled stack as those of the scanned one."""

    def stack(tower):
        layers = [tower["transformer"][f"layer_{i}"] for i in range(len(tower["transformer"]))]
        return {
            **tower,
            "transformer": {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers)},
        }

    return {**params, "image": stack(params["image"]), "text": stack(params["text"])}


def relative_error(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def encodings(model, image, text, mask):
    image, text = model.encode_image(image), model.encode_text(text, mask)
    return (
        image,
        text,
        project(model.text_projection, text.pooled),
        model.embed_image(image),
        model.embed_text(text),
    )


@pytest.mark.variants
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
@pytest.mark.parametrize(("kind", "build"), [("clip", clip_model), ("siglip", siglip_model)])
def test_every_output_equals_transformers(kind, build, scan):
    golden = dict(np.load(GOLDEN / f"{kind}_tiny.npz"))
    params = stacked(parameters_of(kind)) if scan else parameters_of(kind)
    model, inputs = build(scan=scan), (golden["image"], golden["text"], golden["text"] != PADDING)
    expected = jax.eval_shape(
        lambda *inputs: model.init(jax.random.key(0), *inputs), *map(jnp.asarray, inputs[:2])
    )["params"]
    shapes = jax.tree.map(
        lambda box: box.value.shape, expected, is_leaf=lambda leaf: hasattr(leaf, "names")
    )
    assert jax.tree.map(np.shape, params) == shapes

    image, text, projected, image_embedding, text_embedding = jax.jit(
        lambda params, *inputs: model.apply({"params": params}, *inputs, method=encodings)
    )(params, *inputs)
    outputs = {
        "image_tokens": image.tokens,
        "image_pooled": image.pooled,
        "image_embedding": image_embedding,
        "text_tokens": text.tokens,
        "text_pooled": text.pooled if kind == "clip" else projected,
        "text_embedding": text_embedding,
    }
    errors = {name: relative_error(output, golden[name]) for name, output in outputs.items()}
    assert max(errors.values()) <= BOUND, errors


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "build", "changes"),
    [
        (
            "clip",
            clip_model,
            (
                dict(activation="gelu"),
                dict(norm_epsilon=1e-2),
                dict(causal=False),
                dict(pooling="last"),
            ),
        ),
        (
            "siglip",
            siglip_model,
            (
                dict(activation="gelu"),
                dict(norm_epsilon=1e-2),
                dict(causal=True),
                dict(padding_mask=True),
            ),
        ),
    ],
)
def test_another_activation_epsilon_mask_or_pooling_would_be_noticed(kind, build, changes):
    golden, params, config = (
        np.load(GOLDEN / f"{kind}_tiny.npz"),
        parameters_of(kind),
        build().config,
    )
    for change in changes:
        text = dataclasses.replace(config.text, **change)
        model = VisionLanguageModel(dataclasses.replace(config, text=text), Precision())
        _, embedding = model.apply(
            {"params": params}, None, golden["text"], golden["text"] != PADDING
        )
        assert relative_error(embedding, golden["text_embedding"]) > 10 * BOUND, change
