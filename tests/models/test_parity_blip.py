"""One text tower that reads, reads beside a picture and writes, against transformers' BLIP: golden
files of make_blip.py."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from safetensors.numpy import load_file

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.base import DecoderConfig
from vlp_jax.models.fusion.in_text_tower import InTextTowerConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives.captioning import CaptioningConfig, next_token_loss
from vlp_jax.objectives.matching import MatchingConfig
from vlp_jax.objectives.pretraining_module import PretrainingModule

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BOUND = 1e-5  # max|a-b| / max|b|, float32
DECODE, ENCODE = 40, 41
BERT = dict(
    norm="post",
    norm_epsilon=1e-12,
    final_norm=False,
    embedding_norm=True,
    causal=False,
    pooling="first",
    projection="linear_with_bias",
)


def module_of(scan=False, **changes):
    image = ViTConfig(
        preset="Ti",
        width=32,
        depth=2,
        heads=4,
        mlp_dim=48,
        image_size=24,
        patch_size=8,
        scan=scan,
        projection="linear_with_bias",
    )
    text = TextTransformerConfig(
        preset="Ti",
        width=24,
        depth=3,
        heads=3,
        mlp_dim=40,
        vocab_size=42,
        length=10,
        scan=scan,
        **BERT | changes,
    )
    model = ModelConfig(
        image=image,
        text=text,
        embedding_dim=20,
        fusion=InTextTowerConfig(),
        decoder=DecoderConfig.of(kind="in_text_tower"),
    )
    return PretrainingModule(
        model, {"matching": MatchingConfig(), "captioning": CaptioningConfig()}, Precision()
    )


class Tensors:
    """A transformers checkpoint, each of whose tensors is taken exactly once."""

    def __init__(self):
        self.left = load_file(GOLDEN / "blip_tiny.safetensors")

    def norm(self, name):
        return {"scale": self.left.pop(f"{name}.weight"), "bias": self.left.pop(f"{name}.bias")}

    def dense(self, name):
        return {"kernel": self.left.pop(f"{name}.weight").T, "bias": self.left.pop(f"{name}.bias")}

    def mlp(self, first, second):
        return {"in": self.dense(first), "out": self.dense(second)}

    def output(self, name, heads):
        dense = self.dense(name)
        return {
            "kernel": rearrange(dense["kernel"], "(h k) d -> h k d", h=heads),
            "bias": dense["bias"],
        }

    def text_attention(self, name, ours):
        attention = {
            part: by_head(self.dense(f"{name}.self.{part}"), 3)
            for part in ("query", "key", "value")
        }
        return {
            ours: attention | {"out": self.output(f"{name}.output.dense", 3)},
            f"{ours}_norm": self.norm(f"{name}.output.LayerNorm"),
        }

    def text_layer(self, i):
        name = f"retrieval.text_encoder.encoder.layer.{i}"
        own = f"generation.text_decoder.bert.encoder.layer.{i}.attention"
        return {
            **self.text_attention(f"{name}.attention", "attention"),
            **self.text_attention(f"{name}.crossattention", "cross"),
            **self.text_attention(own, "decoder_attention"),
            "mlp_norm": self.norm(f"{name}.output.LayerNorm"),
            "mlp": self.mlp(f"{name}.intermediate.dense", f"{name}.output.dense"),
        }

    def image_layer(self, i):
        name = f"retrieval.vision_model.encoder.layers.{i}"
        fused = self.dense(f"{name}.self_attn.qkv")
        parts = zip(
            ("query", "key", "value"),
            np.split(fused["kernel"], 3, 1),
            np.split(fused["bias"], 3),
            strict=True,
        )
        attention = {
            part: by_head({"kernel": kernel, "bias": bias}, 4) for part, kernel, bias in parts
        }
        return {
            "attention": attention | {"out": self.output(f"{name}.self_attn.projection", 4)},
            "attention_norm": self.norm(f"{name}.layer_norm1"),
            "mlp_norm": self.norm(f"{name}.layer_norm2"),
            "mlp": self.mlp(f"{name}.mlp.fc1", f"{name}.mlp.fc2"),
        }


def by_head(dense, heads):
    return {
        "kernel": rearrange(dense["kernel"], "d (h k) -> d h k", h=heads),
        "bias": rearrange(dense["bias"], "(h k) -> h k", h=heads),
    }


def stacked(layers, scan):
    if scan:
        return {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers)}
    return {f"layer_{i}": layer for i, layer in enumerate(layers)}


def parameters(scan):
    take = Tensors()
    pixels, words = "retrieval.vision_model.embeddings", "retrieval.text_encoder.embeddings"
    patches = take.left.pop(f"{pixels}.patch_embedding.weight")
    positions, table = (
        take.left.pop(f"{pixels}.position_embedding"),
        take.left.pop(f"{words}.word_embeddings.weight"),
    )
    image = {
        "class_token": take.left.pop(f"{pixels}.class_embedding"),
        "class_position": positions[:, :1],
        "position": positions[:, 1:],
        "norm": take.norm("retrieval.vision_model.post_layernorm"),
        "patch_embedding": {
            "kernel": rearrange(patches, "d c p q -> (p q c) d"),
            "bias": take.left.pop(f"{pixels}.patch_embedding.bias"),
        },
        "transformer": stacked([take.image_layer(i) for i in range(2)], scan),
    }
    text = {
        "tokens": {"embedding": table},
        "position": take.left.pop(f"{words}.position_embeddings.weight")[None],
        "embedding_norm": take.norm(f"{words}.LayerNorm"),
        "decode_token": table[None, None, DECODE],
        "encode_token": table[None, None, ENCODE],
        "transformer": stacked([take.text_layer(i) for i in range(3)], scan),
    }
    head = "generation.text_decoder.cls.predictions"
    decoder = {
        "dense": take.dense(f"{head}.transform.dense"),
        "norm": take.norm(f"{head}.transform.LayerNorm"),
        "bias": take.left.pop(f"{head}.bias"),
    }
    model = {
        "image": image,
        "text": text,
        "decoder": decoder,
        "image_projection": take.dense("retrieval.vision_proj"),
        "text_projection": take.dense("retrieval.text_proj"),
    }
    matching = {"head": take.dense("retrieval.itm_head")}
    assert not take.left
    return {"model": model, "objectives_matching": matching}


def batch_of(golden):
    ids = np.stack([np.arange(3), np.arange(3)], axis=1).astype(np.int32)
    return {
        **{name: golden[name] for name in ("image", "text", "text_mask")},
        "image_id": ids,
        "caption_id": ids,
    }


def relative_error(a, b):
    return np.abs(np.asarray(a) - b).max() / np.abs(b).max()


def errors(module, params, golden):
    """How far the image's tokens, the cosines, matching's logits and the decoder's are from
    transformers'."""
    inputs = golden["image"], golden["text"], golden["text_mask"]

    def outputs(module):
        image, (images, texts) = module.model.encode_image(inputs[0]), module.embed(*inputs)
        fused = module.model.fuse(image, module.model.encode_text(*inputs[1:]))
        logits = module.encode(batch_of(golden), {"decoding"}, False)["decoding"].logits
        sums, counts = module.caption_losses(*inputs)
        return {
            "image_tokens": image.tokens,
            "grounded_tokens": fused.tokens,
            "cosines": images @ texts.T,
            "matching_logits": module.match(batch_of(golden)),
            "next_logits": logits,
        }, sums.sum() / counts.sum()

    found, plain = jax.jit(functools.partial(module.apply, method=outputs))({"params": params})
    seen = golden["text_mask"][..., None]
    of_words = {
        name: (seen * found.pop(name), seen * golden[name])
        for name in ("grounded_tokens", "next_logits")
    }
    pairs = {name: (value, golden[name]) for name, value in found.items()} | of_words
    loss = next_token_loss(
        *(jnp.asarray(golden[name]) for name in ("next_logits", "text", "text_mask"))
    )
    pairs["loss"] = (
        next_token_loss(of_words["next_logits"][0], golden["text"], golden["text_mask"], 0.1),
        golden["loss"],
    )
    return {name: relative_error(*pair) for name, pair in pairs.items()} | {
        "plain loss": relative_error(plain, np.asarray(loss))
    }


@pytest.mark.full
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_three_ways_through_one_tower_equal_transformers(scan):
    golden, module, params = (
        dict(np.load(GOLDEN / "blip_tiny.npz")),
        module_of(scan),
        parameters(scan),
    )
    expected = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), batch_of(golden)))[
        "params"
    ]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)
    found = errors(module, params, golden)
    assert max(found.values()) <= BOUND, found


@pytest.mark.full
@pytest.mark.parametrize(
    ("changes", "noticed"),
    [
        (dict(norm="pre"), {"cosines", "matching_logits", "loss"}),
        (dict(padding_mask=False), {"cosines", "matching_logits"}),
        (dict(activation="gelu_tanh"), {"cosines", "matching_logits", "next_logits"}),
    ],
)
def test_another_norm_mask_or_activation_would_be_noticed(changes, noticed):
    golden = dict(np.load(GOLDEN / "blip_tiny.npz"))
    found = errors(module_of(**changes), parameters(False), golden)
    assert all(found[name] > 3 * BOUND for name in noticed), found
