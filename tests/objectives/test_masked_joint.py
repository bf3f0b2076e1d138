"""Masked multimodal modelling: what tells what, padding, and what it needs.

Its losses are in models/test_parity_flava.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import TOWER, batch_of, experiment

from vlp_jax.config import base, to_config
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.errors import ConfigError
from vlp_jax.objectives.masked_language import mask_tokens
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.state import initial_variables

BOTH = dict(
    kind="masked_joint",
    codes=20,
    code_width=4,
    smallest_block=1,
    rate=0.5,
    keep_first=False,
    keep_last=False,
)


def module_of(kind="merged", **changes):
    config = experiment(model__fusion=dict(TOWER, kind=kind), objectives=dict(both=BOTH | changes))
    return build_module(config), example_batch(config)


def losses(batch, **changes):
    """The two losses of a batch, with parameters of some size and always the same masks."""
    module, example = module_of(**changes)
    shapes = nn.meta.unbox(jax.eval_shape(lambda: initial_variables(module, example, 0)))
    rng = np.random.default_rng(3)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            (path[-1].key == "scale") + 0.4 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        shapes,
    )
    metrics = jax.jit(
        lambda batch: module.apply(params, batch, True, rngs={"dropout": jax.random.key(1)}).metrics
    )(batch)
    np.testing.assert_allclose(
        metrics["both/loss"], metrics["both/image_loss"] + metrics["both/text_loss"], rtol=1e-6
    )
    assert {name.removeprefix("both/") for name in metrics} == {
        "loss",
        *(f"image_{name}" for name in ("loss", "accuracy", "code_entropy")),
        *(f"text_{name}" for name in ("loss", "accuracy", "masked", "unigram_entropy")),
    }
    return np.array([float(metrics["both/image_loss"]), float(metrics["both/text_loss"])])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, dict(kind="co_attention", tied=True)], ids=["one stream", "two streams"]
)
def test_patches_are_told_from_words_too_and_words_from_patches_too_and_padding_changes_nothing(
    changes,
):
    batch = batch_of()
    batch |= {"image": (batch["image"] / 127.5 - 1.0).astype(np.float32)}
    mask = batch["text_mask"]
    before = losses(batch, **changes)
    padded = losses(batch | {"text": np.where(mask, batch["text"], 7).astype(np.int32)}, **changes)
    np.testing.assert_array_equal(padded, before)
    words = np.where(mask, (batch["text"] + 1) % 19, batch["text"]).astype(np.int32)
    assert abs(losses(batch | {"text": words}, **changes)[0] - before[0]) > 1e-3
    assert (
        abs(losses(batch | {"image": batch["image"][::-1].copy()}, **changes)[1] - before[1]) > 1e-3
    )


def test_a_fusion_without_tokens_of_the_picture_is_a_config_error():
    module, batch = module_of("cross_attention")
    with pytest.raises(
        ConfigError,
        match="model.fusion.kind: 'cross_attention' gives no tokens of the image .* use 'merged'",
    ):
        jax.eval_shape(lambda: initial_variables(module, batch, 0))


def test_it_needs_a_mask_token_and_spares_only_ends_that_there_are_as_masked_words_do():
    config = base()
    config.update(steps=1, objectives=dict(both=dict(kind="masked_joint")))
    config.model.fusion = dict(kind="merged", preset="Ti")
    config.data.text.start_token, config.model.text.vocab_size = "<start>", 4096
    with pytest.raises(ConfigError, match="leaves no id for the mask token of objectives.both"):
        Preprocessor.from_config(to_config(config.to_dict()))
    config.data.text.start_token = None
    with pytest.raises(
        ConfigError, match="objectives.both.keep_first: has no effect without data.text.start_token"
    ):
        to_config(config.to_dict())


@pytest.mark.full
def test_whole_words_are_hidden_together():
    module, batch = module_of(whole_words=True)
    assert "word_start" in batch
    starts = jnp.tile(jnp.array([True, False, True, False, False]), (8, 1))
    batch = batch_of() | {
        "image": jnp.zeros((8, 8, 8, 3)),
        "word_start": starts,
        "text_mask": jnp.ones((8, 5), bool),
    }
    objective = module.objectives_config["both"]
    keys = jax.random.split(jax.random.key(0), 20)
    text = jax.vmap(
        lambda key: (
            mask_tokens(
                key,
                batch["text"],
                batch["text_mask"],
                objective.rate,
                20,
                19,
                False,
                False,
                batch["word_start"],
            ).chosen
        )
    )(keys)
    assert (
        (text[..., 0] == text[..., 1]).all()
        and (text[..., 2] == text[..., 3]).all()
        and (text[..., 3] == text[..., 4]).all()
    )
    variables = module.init(
        jax.random.key(0),
        example_batch(
            experiment(
                model__fusion=dict(TOWER, kind="merged"),
                objectives=dict(both=BOTH | dict(whole_words=True)),
            )
        ),
    )
    seen = []

    def spy(next_function, arguments, keywords, context):
        if context.method_name == "encode_text":
            seen.append(np.asarray(arguments[0] != batch["text"]))
        return next_function(*arguments, **keywords)

    with nn.intercept_methods(spy):
        for key in range(30):
            module.apply(variables, batch, True, rngs={"dropout": jax.random.key(key)})
    changed = np.concatenate(seen)
    # A chosen token stays as it is in one case of ten: tokens of a word differ in that alone.
    both = (changed[:, 0] & changed[:, 1]).sum() / max((changed[:, 0] | changed[:, 1]).sum(), 1)
    apart = (changed[:, 1] & changed[:, 2]).sum() / max((changed[:, 1] | changed[:, 2]).sum(), 1)
    assert both > 0.7 > 0.5 > apart
