"""Parameters that go from one run into another with its layers scanned or not, for larger pictures,
for longer texts."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_experiment import TOWER, batch_of, experiment, leaves

import vlp_jax
from vlp_jax import main
from vlp_jax.command_line import split_overrides
from vlp_jax.config import load_config
from vlp_jax.errors import ConfigError
from vlp_jax.training.accumulation import prepare
from vlp_jax.training.build import build_module, build_run, example_batch
from vlp_jax.training.checkpoints.format import describe, flat, nest
from vlp_jax.training.initialize_from import find_origins
from vlp_jax.training.resize_parameters import (
    as_here,
    change_of,
    depths,
    fitted,
    resampled,
    restacked,
    shapes_as_here,
)
from vlp_jax.training.state import initial_variables

ROOT = pathlib.Path(__file__).parents[2]
RUN = ("data.train.source=synthetic:64", "model.image.depth=2", "model.text.depth=2", "ema=None")
UNCHANGED = ("steps=1", "optimizer.learning_rate=0")
OF_PATCHES, OF_TEXT = (None, "patches", "embed"), (None, "text_positions", "embed")
GRIDS = [(14, 24), (18, 36), (4, 6), (6, 4), (9, 3), (5, 12)]


def table_of(count, width=5, seed=0):
    return np.random.default_rng(seed).normal(size=(1, count, width)).astype(np.float32)


def cubic_weights(old, new):
    """float64 [new, old] from Keys 1981, equation 15, as much wider as the new grid is coarser,
    each row's sum 1."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    x = np.abs(centres[:, None] - np.arange(old)) / max(old / new, 1.0)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1.0, -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    kernel = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return kernel / kernel.sum(axis=1, keepdims=True)


def resampled_by_hand(table, old, new):
    """[1, old^2, D] -> float64 [1, new^2, D]."""
    weights, grid = cubic_weights(old, new), table.astype(np.float64).reshape(old, old, -1)
    return np.einsum("yi,xj,ijd->yxd", weights, weights, grid).reshape(1, new * new, -1)


@pytest.mark.variants
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_positions_of_patches_are_interpolated_by_the_cubic_kernel_of_the_paper_and_as_pillow_does(
    old, new
):
    table = table_of(old**2)
    found = np.asarray(resampled(jnp.asarray(table), new**2))
    assert found.dtype == np.float32 and found.shape == (1, new**2, 5)
    np.testing.assert_allclose(found, resampled_by_hand(table, old, new), atol=1e-5)
    for channel in range(5):
        picture = Image.fromarray(table.reshape(old, old, 5)[:, :, channel])
        pillow = np.asarray(picture.resize((new, new), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(found.reshape(new, new, 5)[:, :, channel], pillow, atol=1e-5)


@pytest.mark.variants
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_what_is_alike_everywhere_stays_so_and_what_rises_evenly_rises_evenly_inside(old, new):
    np.testing.assert_allclose(resampled(jnp.full((1, old**2, 3), 0.7), new**2), 0.7, atol=1e-6)
    if new > old:
        y, x = np.mgrid[:old, :old].astype(np.float32)
        ramps = np.asarray(
            resampled(jnp.asarray(np.stack([y, x], axis=-1).reshape(1, old**2, 2)), new**2)
        ).reshape(new, new, 2)
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        # all four points of the kernel lie on the grid
        inside = (centres >= 1) & (centres <= old - 2)
        assert inside.any()
        expected = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1)
        np.testing.assert_allclose(ramps[inside][:, inside], expected[inside][:, inside], atol=1e-4)


def test_tokens_in_front_of_the_patches_keep_their_positions():
    table = table_of(1 + 16)
    found = np.asarray(
        fitted(
            jnp.asarray(table), jnp.zeros((1, 1 + 36, 5)), axes=(None, "mean_and_patches", "embed")
        )
    )
    np.testing.assert_array_equal(found[:, :1], table[:, :1])
    np.testing.assert_allclose(found[:, 1:], resampled_by_hand(table[:, 1:], 4, 6), atol=1e-5)


def test_positions_of_rows_and_columns_become_those_of_the_grid_that_they_span():
    rows, columns = table_of(4).reshape(4, 1, 5), table_of(4, seed=1)
    whole = (rows + columns).reshape(1, 16, 5)
    new_rows = fitted(jnp.asarray(rows), jnp.zeros((6, 1, 5)), axes=("patch_rows", None, "embed"))
    new_columns = fitted(
        jnp.asarray(columns), jnp.zeros((1, 6, 5)), axes=(None, "patch_columns", "embed")
    )
    np.testing.assert_allclose(
        (new_rows + new_columns).reshape(1, 36, 5), resampled_by_hand(whole, 4, 6), atol=1e-5
    )


def test_a_shorter_text_takes_the_first_positions_and_a_longer_one_keeps_its_own_behind_them():
    there, here = table_of(7), table_of(10, seed=1)
    np.testing.assert_array_equal(
        fitted(jnp.asarray(here), jnp.asarray(there), axes=OF_TEXT), here[:, :7]
    )
    longer = fitted(jnp.asarray(there), jnp.asarray(here), axes=OF_TEXT)
    np.testing.assert_array_equal(longer, np.concatenate([there, here[:, 7:]], axis=1))


def test_what_has_the_same_shape_is_the_same_and_what_else_differs_cannot_be_changed():
    table = jnp.asarray(table_of(16))
    assert fitted(table, jnp.zeros_like(table), axes=OF_PATCHES) is table
    assert change_of([1, 16, 5], [1, 36, 5], axes=OF_PATCHES) == "resampled"
    assert change_of([1, 16, 5], [1, 12, 5], axes=OF_TEXT) == "cut"
    assert change_of([1, 16, 5], [1, 20, 5], axes=OF_TEXT) == "extended"
    for axes, there, here in (
        (OF_PATCHES, [1, 16, 5], [1, 36, 6]),
        (OF_TEXT, [1, 16, 5], [1, 16, 6]),
        (("patch_rows", None, "embed"), [4, 1, 5], [4, 2, 5]),
        (("embed",), [5], [6]),
        ((), [5], [6]),
        ((None, None, "embed"), [1, 1, 5], [1, 2, 5]),
    ):
        assert change_of(there, here, axes=axes) is None


LAYERED = dict(TOWER, depth=3)
WITH_ALL_STACKS = dict(
    model__image__depth=3,
    model__text__depth=3,
    model__fusion=dict(LAYERED, kind="cross_attention"),
    model__decoder=dict(LAYERED, kind="transformer"),
    objectives=dict(
        match=dict(kind="matching", negatives="uniform"), write=dict(kind="captioning")
    ),
)


def with_scan(scan):
    return experiment(
        **WITH_ALL_STACKS,
        **{f"model__{part}__scan": scan for part in ("image", "text", "fusion", "decoder")},
    )


def initial(config, seed):
    return flat(
        jax.jit(
            lambda: nn.meta.unbox(
                initial_variables(build_module(config), example_batch(config), seed)
            )
        )()["params"]
    )


def encoder(config):
    """{path: array} of all that a module computes of one batch, as a function of {path:
    parameter}."""
    batch, module, needs = (
        prepare(batch_of(), config.data.images),
        build_module(config),
        {"image", "text", "fused", "decoding"},
    )
    return jax.jit(
        lambda params: flat(
            module.apply({"params": nest(params)}, batch, needs, False, method="encode")
        )
    )


@pytest.mark.full
def test_every_stack_encodes_alike_with_its_layers_scanned_or_not():
    configs = [with_scan(scan) for scan in (False, True)]
    params, encode = (
        [initial(config, seed) for seed, config in enumerate(configs)],
        [encoder(config) for config in configs],
    )
    for origin in (0, 1):
        there, here = params[origin], params[1 - origin]
        assert (
            list(depths(describe(there)).values())
            == [3, 3, 3, 3]
            == list(depths(describe(here)).values())
        )
        assert there.keys() != here.keys() and shapes_as_here(
            describe(there), describe(here)
        ) == describe(here)
        taken = jax.jit(as_here)(there, here)
        expected, found = encode[origin](there), encode[1 - origin](taken)
        assert found.keys() == expected.keys()
        for path, value in expected.items():
            np.testing.assert_allclose(found[path], value, atol=2e-5, err_msg=path)
        back = restacked(taken, there)
        assert back.keys() == there.keys() and all(
            np.array_equal(back[path], there[path]) for path in there
        )


@pytest.fixture(scope="module")
def train(tiny):
    """`train(FOLDER, "steps=3", ...)` trains there, which must end well; returns the folder."""

    def run(folder, *changes):
        flags = tiny(*RUN, *changes)
        assert (
            main.main(
                [f"--config={ROOT}/configs/clip_emoji.py:smoke", f"--workdir={folder}", *flags]
            )
            == 0
        )
        return folder

    return run


@pytest.fixture(scope="module")
def source(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("source") / "run", "seed=1", "steps=2")


def assembled(flags):
    return build_run(load_config(f"{ROOT}/configs/clip_emoji.py:smoke", split_overrides(flags)[1]))


def trained(folder):
    """(model, variables, {path: parameter})."""
    model, variables, _ = vlp_jax.load(folder)
    return model, variables, leaves(variables["params"])


@pytest.mark.full
def test_runs_resume_scanned_on_other_devices_and_then_unscanned_with_larger_images_and_texts(
    train, tiny, source, tmp_path, capsys
):
    scans = (
        "model.image.scan=True",
        "model.text.scan=True",
        "mesh.fsdp=4",
        "mesh.replicate_below=64",
    )
    stacked = train(
        tmp_path / "stacked", f"pretrained={{'a':{{'workdir':'{source}'}}}}", *UNCHANGED, *scans
    )
    assert "resampled" not in capsys.readouterr().out
    changes = (
        "model.image.image_size=48",
        "model.text.length=16",
        "mesh.fsdp=8",
        "mesh.replicate_below=64",
    )
    run = assembled(tiny(*RUN, *UNCHANGED, *changes))
    places, fresh = flat(run.shardings.params), leaves(run.initial_state().params)
    assert all("fsdp" in places[f"model/{tower}/position"].spec for tower in ("image", "text"))
    last = train(
        tmp_path / "last", f"pretrained={{'a':{{'workdir':'{stacked}'}}}}", *UNCHANGED, *changes
    )
    said = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrained.a: ")
    )
    assert said.endswith(
        f"from {stacked}, step 1; model/image/position [1, 16, 32] resampled to "
        "[1, 36, 32]; model/text/position [1, 12, 32] extended to [1, 16, 32]"
    )
    model, variables, first = trained(source)
    rng = np.random.default_rng(0)
    image, text = (
        rng.normal(size=(4, 32, 32, 3)).astype(np.float32),
        rng.integers(5, 200, (4, 12)).astype(np.int32),
    )
    mask = np.arange(12) < np.array([[12], [3], [7], [1]])
    expected = model.embed(variables, image, text, mask)
    scanned, variables, second = trained(stacked)
    assert second["model/image/transformer/layers/mlp/in/kernel"].shape == (2, 32, 64)
    for found, value in zip(scanned.embed(variables, image, text, mask), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=2e-5)
    unscanned, variables, third = trained(last)
    longer, shown = (np.pad(array, ((0, 0), (0, 4))) for array in (text, mask))
    np.testing.assert_allclose(
        unscanned.embed(variables, text=longer, text_mask=shown)[1], expected[1], atol=2e-5
    )
    for path, value in first.items():
        if path == "model/image/position":
            value = resampled_by_hand(value, 4, 6)
        if path == "model/text/position":
            value = np.concatenate([value, fresh[path][:, 12:]], axis=1)
        if path.startswith("model/"):
            np.testing.assert_allclose(
                third[path], value, atol=1e-5 if path == "model/image/position" else 0, err_msg=path
            )


@pytest.mark.full
def test_a_stack_of_another_depth_is_refused_with_both_depths_unless_patterns_name_as_many_layers(
    tiny, source, tmp_path
):
    def origin_of(entry, *changes):
        entry = f"pretrained={{'a':{{'workdir':'{source}'{entry}}}}}"
        return find_origins(
            assembled(tiny("steps=2", *RUN, *changes, entry)), str(tmp_path / "run")
        )[0]

    for changes in (
        ("model.text.depth=3",),
        ("model.text.depth=3", "model.text.scan=True"),
        ("model.text.depth=1",),
    ):
        depth = changes[0][-1]
        with pytest.raises(
            ConfigError,
            match=f"pretrained.a: model/text/transformer has 2 layers in .* and {depth} in this",
        ):
            origin_of("", *changes)
    two = origin_of(",'parameters':('^model/text/transformer/layer_[01]/',)", "model.text.depth=3")
    assert {path.split("/")[3] for path in two.parameters} == {
        "layer_0",
        "layer_1",
    } and not two.changes
    with pytest.raises(
        ConfigError,
        match=r"model/image/patch_embedding/kernel is \[192, 32\] in "
        r".* and \[768, 32\] in this",
    ):
        origin_of("", "model.image.patch_size=16")
    shorter = origin_of("", "model.text.length=8", "model.image.image_size=16")
    assert shorter.changes == (
        "model/image/position [1, 16, 32] resampled to [1, 4, 32]",
        "model/text/position [1, 12, 32] cut to [1, 8, 32]",
    )
