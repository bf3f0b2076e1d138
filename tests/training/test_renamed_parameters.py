"""Parameters that another model has under other names: `pretrained.NAME.renamed`."""

import types

import jax
import numpy as np
import pytest
from tiny_experiment import experiment

from vlp_jax.config import load_config, to_tree
from vlp_jax.errors import ConfigError
from vlp_jax.training.build import build_module, example_batch
from vlp_jax.training.checkpoints.format import describe
from vlp_jax.training.initialize_from import origin_at, taken_from
from vlp_jax.training.pretrained import PretrainedConfig
from vlp_jax.training.renamed_parameters import named_there, statistics_from
from vlp_jax.training.state import abstract_collections, abstract_parameters

TEXT, FUSION = "model/text/transformer/", "model/fusion/transformer/"
HALVES = (
    (f"{TEXT}layer_{{}}/", f"{TEXT}layer_{{}}/"),
    (f"{FUSION}layer_{{}}/", f"{TEXT}layer_{{+2}}/"),
)
BOTH = (f"^{TEXT}", f"^{FUSION}")


def fused(text=2, fusion=2, scan=False, **changes):
    """A tiny model whose text is fused by layers like those of its text tower."""
    return experiment(
        model__text__depth=text,
        model__text__scan=scan,
        model__fusion=dict(
            kind="cross_attention",
            preset="Ti",
            width=8,
            depth=fusion,
            heads=2,
            mlp_dim=8,
            scan=scan,
        ),
        objectives=dict(matching=dict(kind="matching", negatives="uniform")),
        **changes,
    )


def run_of(config):
    """What `origin_at` reads of a run, without compilation."""
    module, batch = build_module(config), example_batch(config)
    shapes = types.SimpleNamespace(
        params=abstract_parameters(module, batch), collections=abstract_collections(module, batch)
    )
    return types.SimpleNamespace(config=config, module=module, shapes=shapes, preprocessor=None)


class Source:
    """Another model with random parameters."""

    title = folder = "there"
    position_filter, tokenizer = "bicubic", None

    def __init__(self, config, collections=()):
        rng = np.random.default_rng(0)
        self.config = to_tree(config)
        self.parameters = describe(run_of(config).shapes.params)
        self.collections = dict(collections)
        self.arrays = {
            path: rng.standard_normal(shape).astype(np.float32)
            for path, shape in self.parameters.items()
        }


def origin(here, there, **keys):
    """The source, what is taken from it, and its arrays."""
    spec, run = PretrainedConfig(workdir="there", **keys), run_of(here)
    source = Source(there)
    found = origin_at("a", source, spec, run)
    shapes = describe(run.shapes.params)
    fresh = {path: np.zeros(shapes[path], np.float32) for path in found.parameters}
    return source, found, taken_from(source.arrays, fresh, found)


def layer(arrays, path, number):
    """The parameter of a layer, scanned or not."""
    stack, _, part = path.partition("*/")
    if f"{stack}layers/{part}" in arrays:
        return arrays[f"{stack}layers/{part}"][number]
    return arrays[f"{stack}layer_{number}/{part}"]


@pytest.mark.parametrize("scan_here", [False, True])
@pytest.mark.parametrize("scan_there", [False, True])
def test_two_stacks_are_taken_from_the_halves_of_one_scanned_or_not(scan_here, scan_there):
    here, there = fused(scan=scan_here), fused(text=4, fusion=1, scan=scan_there)
    source, found, taken = origin(here, there, parameters=BOTH, renamed=HALVES)
    for part in ("attention/query/kernel", "mlp/in/bias", "mlp_norm/scale"):
        for number in range(2):
            for stack, shift in ((TEXT, 0), (FUSION, 2)):
                np.testing.assert_array_equal(
                    layer(taken, f"{stack}*/{part}", number),
                    layer(source.arrays, f"{TEXT}*/{part}", number + shift),
                )
    assert found.left and all("/cross" in path for path in found.left)
    assert not any(path.startswith(TEXT) for path in found.unused)
    assert any(path.startswith(FUSION) for path in found.unused)


def test_layers_that_are_not_taken_are_listed_and_a_parameter_may_go_to_several_places():
    source, found, taken = origin(
        fused(text=2, fusion=2),
        fused(text=4, fusion=1),
        parameters=BOTH,
        renamed=(
            (f"{TEXT}layer_{{}}", f"{TEXT}layer_{{+1}}"),
            (f"{FUSION}layer_{{}}", HALVES[0][1]),
        ),
    )
    kernel = "attention/value/kernel"
    np.testing.assert_array_equal(
        taken[f"{TEXT}layer_0/{kernel}"], taken[f"{FUSION}layer_1/{kernel}"]
    )
    unused = [path for path in found.unused if path.startswith(TEXT)]
    assert unused and all(path.startswith(f"{TEXT}layer_3/") for path in unused)


def test_modules_without_layers_are_renamed_and_positions_resized():
    here = fused(model__text__length=3)
    there = fused(model__text__length=5)
    source, found, taken = origin(
        here,
        there,
        parameters=("^model/text/", "^model/fusion/norm/"),
        renamed=(("model/fusion/norm", "model/text/norm"),),
    )
    np.testing.assert_array_equal(
        taken["model/fusion/norm/scale"], source.arrays["model/text/norm/scale"]
    )
    np.testing.assert_array_equal(taken["model/text/norm/scale"], taken["model/fusion/norm/scale"])
    position = source.arrays["model/text/position"]
    np.testing.assert_array_equal(taken["model/text/position"], position[:, :3])
    assert found.changes == ("model/text/position [1, 5, 8] cut to [1, 3, 8]",)
    assert "model/fusion/norm/scale" in found.unused


@pytest.mark.full
def test_a_stack_in_one_piece_has_as_many_layers_there():
    pair = ((FUSION, TEXT),)
    for scan in (False, True):
        with pytest.raises(
            ConfigError,
            match="pretrained.a: model/fusion/transformer/?.* has 3 layers in there and 2 in this",
        ):
            origin(fused(scan=scan), fused(text=3), parameters=(f"^{FUSION}",), renamed=pair)
    with pytest.raises(ConfigError, match="has 1 layers in there and 2 in this config"):
        origin(fused(), fused(text=3), parameters=BOTH, renamed=HALVES)
    _, found, _ = origin(fused(), fused(), parameters=(f"^{FUSION}",), renamed=pair)
    assert found.parameters


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            ("model/fusion/layer_{}", f"{TEXT}layer_{{}}"),
            "pretrained.a.renamed: 'model/fusion/layer_{}' names no parameter of this model; near "
            "is 'model/fusion/transformer/layer_{}'",
        ),
        (
            (f"{FUSION}layer_{{}}", "model/text/layer_{+6}"),
            "pretrained.a.renamed: 'model/text/layer_{+6}' names no parameter of there that "
            f"'{FUSION}layer_{{}}' has here; near is '{TEXT}layer_{{}}'",
        ),
        (
            (f"{FUSION}layer_{{}}", f"{TEXT}layer_{{+6}}"),
            f"pretrained.a.renamed: '{TEXT}layer_{{+6}}' names no parameter of there",
        ),
        (("model/fusion/nor", "model/text/norm"), "near is 'model/fusion/norm'"),
    ],
)
def test_a_pair_that_names_nothing_is_refused_with_the_nearest(pair, message):
    with pytest.raises(ConfigError) as error:
        origin(fused(), fused(), parameters=BOTH, renamed=(pair,))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("a/layer_{+1}", "b/layer_{}"), "'a/layer_{+1}' has braces other than one {}"),
        (("a/layer_{}/{}", "b/layer_{}"), "'a/layer_{}/{}' has braces other than one {}"),
        (("a/layer_{}", "b/layer_{i}"), "'b/layer_{i}' has braces other than {}, {+N} or {-N}"),
        (("a/layer_{}", "b/layer_0"), "'a/layer_{}' and 'b/layer_0' need a number {} each"),
        (("a", "b/layer_{}"), "'a' and 'b/layer_{}' need a number {} each, or neither has one"),
    ],
)
def test_numbers_that_are_not_understood_are_refused_with_the_config(pair, message):
    key = "pretrained.x.renamed"
    with pytest.raises(ConfigError) as error:
        load_config(
            "clip_emoji:smoke", [("pretrained", repr({"x": {"workdir": "w", "renamed": (pair,)}}))]
        )
    assert f"{key}: {message}" in str(error.value)
    if "need a number" not in message:
        assert "as in ('model/fusion/transformer/layer_{}', 'model/text" in str(error.value)


def test_the_first_pair_counts_and_names_end_with_a_name():
    pairs = (("m/a/layer_{}/x", "t/y_{}"), ("m/a", "n"), ("m/b/layer_{}/", "m/b/layer_{-2}/"))
    assert named_there("m/a/layer_12/x/bias", pairs) == "t/y_12/bias"
    assert named_there("m/a/layer_12/xy/bias", pairs) == "n/layer_12/xy/bias"
    assert named_there("m/a_projection/bias", pairs) is None
    assert named_there("m/b/layer_5/w", pairs) == "m/b/layer_3/w"


def test_settings_by_which_parameters_compute_something_else_are_listed():
    here = fused(model__text__norm_epsilon=1e-6, model__text__position_offset=2)
    there = fused(model__text__norm_epsilon=1e-12, model__text__activation="relu")
    _, found, _ = origin(
        here,
        there,
        parameters=("^model/text/(transformer|norm)/", f"^{FUSION}"),
        renamed=((FUSION, TEXT),),
    )
    assert found.settings == (
        "model.fusion.norm_epsilon 1e-06 (there 1e-12)",
        "model.fusion.activation 'gelu' (there 'relu')",
        "model.text.norm_epsilon 1e-06 (there 1e-12)",
        "model.text.activation 'gelu' (there 'relu')",
        "model.text.position_offset 2 (there 0)",
    )
    assert origin(there, there, parameters=("^model/image/",))[1].settings == ()


def test_running_statistics_are_renamed_with_their_parameters():
    there = {"batch_stats/model/old/norm/mean": [4], "batch_stats/model/image/norm/var": [4]}
    here = {
        "batch_stats/model/image/norm/mean": [4],
        "batch_stats/model/image/norm/var": [4],
        "queue/x": [4],
    }
    pairs = (("model/image/norm/mean", "model/old/norm/mean"),)
    assert statistics_from(there, ["^model/image/"], pairs, here) == {
        "batch_stats/model/image/norm/mean": "batch_stats/model/old/norm/mean",
        "batch_stats/model/image/norm/var": "batch_stats/model/image/norm/var",
    }
    assert statistics_from(there, ["^model/text/"], pairs, here) == {}


def test_a_traced_function_takes_them():
    source, found, taken = origin(
        fused(scan=True), fused(text=4, fusion=1), parameters=BOTH, renamed=HALVES
    )
    fresh = {path: np.zeros_like(value) for path, value in taken.items()}
    traced = jax.eval_shape(lambda arrays: taken_from(arrays, fresh, found), source.arrays)
    assert {path: value.shape for path, value in traced.items()} == {
        path: value.shape for path, value in taken.items()
    }
