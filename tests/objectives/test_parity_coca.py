"""CoCa's two losses and its text tower against open_clip: golden files that
tests/golden/make_coca.py wrote."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import relative_error
from torch_weights import Tensors, three_in_one

from vlp_jax.models.config import ModelConfig
from vlp_jax.models.decoder.transformer import Decoding
from vlp_jax.models.layers.transformer import Precision
from vlp_jax.models.text.transformer import TextTransformerConfig
from vlp_jax.models.vision_language import VisionLanguageModel
from vlp_jax.objectives.captioning import CaptioningConfig
from vlp_jax.objectives.contrastive import SoftmaxContrastiveConfig

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden/coca.npz"))
BOUND = 1e-5  # max|a-b| / max|b|, float32
HEADS, DEPTH = 3, 2
TEXT = TextTransformerConfig(
    preset="Ti",
    width=24,
    depth=DEPTH,
    heads=HEADS,
    mlp_dim=96,
    vocab_size=50,
    length=8,
    pooling="cls_end",
    norm_epsilon=1e-5,
)
BATCH = {name: GOLDEN[name] for name in ("text", "text_mask")} | {
    name: np.stack([np.arange(4), np.arange(4)], axis=1).astype(np.int32)
    for name in ("caption_id", "image_id")
}


def layer(take, name):
    inputs = {
        "kernel": take(f"{name}.attn.in_proj_weight").T,
        "bias": take(f"{name}.attn.in_proj_bias"),
    }
    return {
        "attention": three_in_one(inputs, HEADS)
        | {"out": take.output(f"{name}.attn.out_proj", HEADS)},
        "attention_norm": take.norm(f"{name}.ln_1"),
        "mlp_norm": take.norm(f"{name}.ln_2"),
        "mlp": {"in": take.dense(f"{name}.mlp.c_fc"), "out": take.dense(f"{name}.mlp.c_proj")},
    }


def parameters():
    """Ours from those of open_clip, which are all used up: there the class token has the place
    behind the longest text."""
    take = Tensors(GOLDEN["shapes"])
    positions = take("positional_embedding")
    text = {
        "tokens": {"embedding": take("token_embedding.weight")},
        "position": positions[None, :8],
        "class_token": (take("cls_emb") + positions[8])[None, None],
        "norm": take.norm("ln_final"),
        "transformer": {
            f"layer_{i}": layer(take, f"transformer.resblocks.{i}") for i in range(DEPTH)
        },
    }
    projection = {"kernel": take("text_projection")}
    assert not take.left
    return {"text": text, "text_projection": projection}


def encoded(params, **changes):
    """The text's tokens, and its embedding."""
    model = VisionLanguageModel(
        ModelConfig(text=dataclasses.replace(TEXT, **changes), embedding_dim=20), Precision()
    )

    def both(model, text, mask):
        encoding = model.encode_text(text, mask)
        return encoding.tokens, model.embed_text(encoding)

    return model.apply({"params": params}, BATCH["text"], BATCH["text_mask"], method=both)


def losses(params, logits, **changes):
    """Of both objectives, each with its weight. logits: [B, L - 1, V], those that predict a
    word."""
    configs = {
        "contrastive": SoftmaxContrastiveConfig(weight=1.0),
        "captioning": CaptioningConfig(weight=2.0, unigram="batch"),
    }
    encodings = {
        "image_embedding": GOLDEN["image_embedding"],
        "text_embedding": encoded(params, **changes)[1],
        "decoding": Decoding(jnp.pad(logits, ((0, 0), (0, 1), (0, 0))), jnp.zeros(4, jnp.int32)),
    }
    own = {"contrastive": {"params": {"log_scale": jnp.log(14.3)}}, "captioning": {}}
    return {
        name: configs[name].weight
        * configs[name].build().apply(own[name], encodings, BATCH, None).value
        for name in configs
    }


@pytest.mark.full
def test_tokens_and_embeddings_of_texts_of_any_length_equal_those_of_open_clip():
    tokens, embedding = encoded(parameters())
    real = GOLDEN["text_mask"]
    assert relative_error(tokens[real], GOLDEN["tokens"][real]) <= BOUND
    assert relative_error(embedding, GOLDEN["text_embedding"]) <= BOUND


@pytest.mark.full
def test_both_losses_and_the_gradient_of_their_sum_equal_those_of_open_clip():
    params = parameters()
    found = losses(params, GOLDEN["logits"])
    np.testing.assert_allclose(found["contrastive"], GOLDEN["contrastive_loss"], rtol=BOUND)
    np.testing.assert_allclose(found["captioning"], GOLDEN["caption_loss"], rtol=BOUND)
    of_params, of_logits = jax.jit(
        jax.grad(lambda *inputs: sum(losses(*inputs).values()), argnums=(0, 1))
    )(params, jnp.asarray(GOLDEN["logits"]))
    assert (
        relative_error(of_params["text"]["tokens"]["embedding"], GOLDEN["gradient"]) <= 10 * BOUND
    )
    assert relative_error(of_logits, GOLDEN["logits_gradient"]) <= 10 * BOUND


@pytest.mark.full
@pytest.mark.parametrize(
    "change", [dict(norm_epsilon=1e-2), dict(activation="quick_gelu"), dict(pooling="end")]
)
def test_another_tower_would_be_noticed(change):
    assert relative_error(encoded(parameters(), **change)[1], GOLDEN["text_embedding"]) > 10 * BOUND
