"""Six losses against transformers' FlavaForPreTraining, of the same weights, masks and codes:
golden files of make_flava.py."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from safetensors.numpy import load_file

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.fusion.attention import MergedAttentionConfig
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision.vit import ViTConfig
from vlp_jax.objectives.contrastive import SoftmaxContrastiveConfig
from vlp_jax.objectives.masked_image import MaskedImageConfig
from vlp_jax.objectives.masked_joint import MaskedJointConfig
from vlp_jax.objectives.masked_language import MaskedLanguageConfig, MaskedText
from vlp_jax.objectives.matching import MatchingConfig, matching_loss
from vlp_jax.objectives.pretraining_module import PretrainingModule

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BOUND = 1e-5  # relative, float32
LAYERS = dict(preset="Ti", width=32, norm_epsilon=1e-12)
LOSSES = {
    "contrastive/loss": "global_contrastive",
    "patches/loss": "mim",
    "words/loss": "mlm",
    "both/image_loss": "mmm_image",
    "both/text_loss": "mmm_text",
    "matching": "itm",
}


def module_of(scan=False, fusion=(), **text):
    layers = dict(LAYERS, scan=scan)
    image = ViTConfig(
        **layers,
        depth=2,
        heads=4,
        mlp_dim=48,
        image_size=32,
        patch_size=8,
        projection="linear_with_bias",
    )
    text = TextTransformerConfig(
        **layers | text,
        depth=3,
        heads=2,
        mlp_dim=40,
        vocab_size=40,
        length=10,
        causal=False,
        pooling="first",
        embedding_norm=True,
        token_types=2,
        projection="linear_with_bias",
    )
    fused = dict(
        depth=2,
        heads=4,
        mlp_dim=56,
        pooler=True,
        class_token=True,
        projected=True,
        normalised=False,
    ) | dict(fusion)
    objectives = {
        "contrastive": SoftmaxContrastiveConfig(),
        "patches": MaskedImageConfig(codes=23, smallest_block=1),
        "words": MaskedLanguageConfig(with_image=False),
        "both": MaskedJointConfig(codes=23, smallest_block=1),
        "matching": MatchingConfig(negatives="uniform"),
    }
    model = ModelConfig(
        image=image, text=text, embedding_dim=20, fusion=MergedAttentionConfig(**layers, **fused)
    )
    return PretrainingModule(model, objectives, Precision())


class Tensors:
    """A transformers checkpoint, each of whose tensors is taken exactly once."""

    def __init__(self):
        self.left = load_file(GOLDEN / "flava_tiny.safetensors")

    def norm(self, name):
        return {"scale": self.left.pop(f"{name}.weight"), "bias": self.left.pop(f"{name}.bias")}

    def dense(self, name):
        return {"kernel": self.left.pop(f"{name}.weight").T, "bias": self.left.pop(f"{name}.bias")}

    def layer(self, name, heads):
        attention = {
            part: self.dense(f"{name}.attention.attention.{part}")
            for part in ("query", "key", "value")
        }
        attention = {
            part: {
                "kernel": rearrange(dense["kernel"], "d (h k) -> d h k", h=heads),
                "bias": rearrange(dense["bias"], "(h k) -> h k", h=heads),
            }
            for part, dense in attention.items()
        }
        out = self.dense(f"{name}.attention.output.dense")
        attention["out"] = {
            "kernel": rearrange(out["kernel"], "(h k) d -> h k d", h=heads),
            "bias": out["bias"],
        }
        return {
            "attention": attention,
            "attention_norm": self.norm(f"{name}.layernorm_before"),
            "mlp_norm": self.norm(f"{name}.layernorm_after"),
            "mlp": {
                "in": self.dense(f"{name}.intermediate.dense"),
                "out": self.dense(f"{name}.output.dense"),
            },
        }

    def stack(self, name, depth, heads, scan):
        layers = [self.layer(f"flava.{name}_model.encoder.layer.{i}", heads) for i in range(depth)]
        stacked = (
            {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers)} if scan else None
        )
        return {
            "transformer": stacked or {f"layer_{i}": layer for i, layer in enumerate(layers)},
            "norm": self.norm(f"flava.{name}_model.layernorm"),
        }

    def head(self, name):
        return {
            "dense": self.dense(f"{name}.transform.dense"),
            "norm": self.norm(f"{name}.transform.LayerNorm"),
            "table": self.left.pop(f"{name}.decoder.weight"),
            "bias": self.left.pop(f"{name}.decoder.bias"),
        }


def parameters(scan=False):
    take = Tensors()
    pixels, words = "flava.image_model.embeddings", "flava.text_model.embeddings"
    patches = take.left.pop(f"{pixels}.patch_embeddings.projection.weight")
    positions = take.left.pop(f"{pixels}.position_embeddings")
    image = {
        "class_token": take.left.pop(f"{pixels}.cls_token"),
        "mask_token": take.left.pop(f"{pixels}.mask_token"),
        "class_position": positions[:, :1],
        "position": positions[:, 1:],
        "patch_embedding": {
            "kernel": rearrange(patches, "d c p q -> (p q c) d"),
            "bias": take.left.pop(f"{pixels}.patch_embeddings.projection.bias"),
        },
        **take.stack("image", 2, 4, scan),
    }
    text = {
        "tokens": {"embedding": take.left.pop(f"{words}.word_embeddings.weight")},
        "position": take.left.pop(f"{words}.position_embeddings.weight")[None],
        "token_type": take.left.pop(f"{words}.token_type_embeddings.weight"),
        "embedding_norm": take.norm(f"{words}.LayerNorm"),
        **take.stack("text", 3, 2, scan),
    }
    fusion = {
        "class_token": take.left.pop("flava.multimodal_model.cls_token"),
        "pooler": take.dense("itm_head.pooler.dense"),
        "image_in": take.dense("flava.image_to_mm_projection"),
        "text_in": take.dense("flava.text_to_mm_projection"),
        **take.stack("multimodal", 2, 4, scan),
    }
    model = {
        "image": image,
        "text": text,
        "fusion": fusion,
        "image_projection": take.dense("flava.image_projection"),
        "text_projection": take.dense("flava.text_projection"),
    }
    params = {
        "model": model,
        "objectives_matching": {"head": take.dense("itm_head.seq_relationship")},
        "objectives_contrastive": {"log_scale": take.left.pop("flava.logit_scale")},
        "objectives_patches": {"head": take.head("mim_head")},
        "objectives_words": {"head": take.head("mlm_head")},
        "objectives_both": {
            "image_head": take.head("mmm_image_head"),
            "text_head": take.head("mmm_text_head"),
        },
    }
    assert not take.left
    return params


def masked_matching(module, golden, mask):
    """The logits of pairs that are masked, as FLAVA matches them."""
    image = module.model.encode_image(golden["image"], masked=mask)
    text = module.model.encode_text(golden["masked_text"], golden["text_mask"])
    return module.objectives["matching"].logits(module.model, image, text)


def errors(monkeypatch, module, params, golden, **padding):
    """Relative errors of the six losses, with the golden file's masks and codes in place of drawn
    ones."""
    golden = golden | padding
    masked = MaskedText(golden["masked_text"], golden["chosen"], golden["text_mask"])
    for name, value in (
        ("masked_image.hidden_patches", golden["places"]),
        ("masked_image.patch_codes", golden["codes"]),
        ("masked_language.mask_tokens", masked),
    ):
        monkeypatch.setattr(
            f"vlp_jax.objectives.{name}",
            lambda *arguments, value=value: jax.tree.map(jnp.asarray, value),
        )
    ids = np.stack([np.arange(4), np.arange(4)], axis=1).astype(np.int32)
    batch = {name: golden[name] for name in ("image", "text", "text_mask")} | {
        "image_id": ids,
        "caption_id": ids,
    }
    expected = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), batch))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)
    losses = jax.jit(
        lambda params: module.apply({"params": params}, batch, rngs={"dropout": jax.random.key(0)})
    )(params).metrics
    hidden = (golden["places"][:, :, None] == np.arange(16)).any(1)
    logits = module.apply({"params": params}, golden, hidden, method=masked_matching)
    losses |= {"matching": matching_loss(logits, golden["belongs"], jnp.ones(4, bool)).value}
    return {
        ours: abs(float(losses[ours]) / float(golden[theirs]) - 1.0)
        for ours, theirs in LOSSES.items()
    }


@pytest.fixture
def golden():
    return dict(np.load(GOLDEN / "flava_tiny.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_six_losses_equal_transformers(monkeypatch, golden, scan):
    found = errors(monkeypatch, module_of(scan), parameters(scan), golden)
    assert max(found.values()) <= BOUND, found


@pytest.mark.slow
def test_hidden_tokens_of_padding_change_no_loss(monkeypatch, golden):
    noise = np.random.default_rng(0).integers(0, 40, golden["text"].shape).astype(np.int32)
    noisy = {
        name: np.where(golden["text_mask"], golden[name], noise) for name in ("text", "masked_text")
    }
    found = errors(monkeypatch, module_of(), parameters(), golden, **noisy)
    assert max(found.values()) <= BOUND, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "noticed"),
    [
        (dict(fusion=dict(normalised=True)), {"both/image_loss", "both/text_loss", "matching"}),
        (
            dict(padding_mask=False),
            {"contrastive/loss", "words/loss", "both/text_loss", "matching"},
        ),
        (dict(norm_epsilon=1e-2), {"contrastive/loss", "words/loss", "both/text_loss", "matching"}),
    ],
)
def test_normalised_inputs_another_mask_or_epsilon_would_be_noticed(
    monkeypatch, golden, changes, noticed
):
    found = errors(monkeypatch, module_of(**changes), parameters(), golden)
    assert all(found[name] > 3 * BOUND for name in noticed), found
