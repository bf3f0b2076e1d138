"""Every recipe's smoke variant trains, in float32 on one device and on a mesh alike, and in
bfloat16 with float32 parameters."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from vlp_jax.config import load_stages
from vlp_jax.models.options import PrecisionConfig
from vlp_jax.sharding.mesh import MeshConfig
from vlp_jax.training.build import build_run

pytestmark = pytest.mark.recipes
FOLDER = pathlib.Path(__file__).parents[1] / "configs"
CONFIGS = [
    f"{path.stem}:{stage}" if stage else path.stem
    for path in sorted(FOLDER.glob("*.py"))
    for stage in load_stages(str(path))
]
MESHES = {
    "one device": MeshConfig(data=1),
    "data=4, fsdp=2": MeshConfig(data=4, fsdp=2, replicate_below=256),
}
STEPS = 3


def smoke(name, mesh, compute):
    """The smoke variant of a config, or of one of its stages (NAME:STAGE), three steps of 32
    examples.

    Adam divides a gradient by its own size in the first steps, so that one which is a rounding
    error becomes a full update with a small epsilon; with 1e-6 it does not.
    """
    name, _, stage = name.partition(":")
    config = load_stages(f"configs/{name}.py:smoke")[stage or None]
    data = dataclasses.replace(config.data, batch_size=32)
    optimizer = config.optimizer
    if hasattr(optimizer, "epsilon"):
        optimizer = dataclasses.replace(optimizer, epsilon=max(optimizer.epsilon, 1e-6))
    return dataclasses.replace(
        config,
        steps=STEPS,
        data=data,
        model=with_one_loop(config.model),
        mesh=mesh,
        evaluators={},
        optimizer=optimizer,
        precision=PrecisionConfig(compute=compute),
    )


def with_one_loop(model):
    """The model with an unrolled text tower where both towers are scanned.

    The devices of one CPU may enter the collectives of two independent loops in different orders,
    and then wait for each other without end (jaxlib 0.10.2).
    """
    scanned = [getattr(tower, "scan", False) for tower in (model.image, model.text)]
    if not all(scanned):
        return model
    return dataclasses.replace(model, text=dataclasses.replace(model.text, scan=False))


def losses(config):
    """The metrics of the first updates, and the state after them."""
    run = build_run(config)
    assert run.mesh.size == (1 if config.mesh.fsdp == 1 else 8)
    state, batches, rows = run.initial_state(), run.batches(0), []
    for _ in range(STEPS):
        state, metrics = run.train_step(state, run.to_device(next(batches)))
        rows.append(
            {name: float(value) for name, value in metrics.items() if name.endswith("loss")}
        )
    batches.close()
    return rows, state


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_losses_are_the_same_on_one_device_and_on_a_mesh(name):
    one, mesh = (losses(smoke(name, mesh, "float32"))[0] for mesh in MESHES.values())
    for step in range(STEPS):
        for key, value in one[step].items():
            np.testing.assert_allclose(
                mesh[step][key], value, rtol=1e-4, err_msg=f"{key} of step {step + 1}"
            )


@pytest.mark.parametrize("name", CONFIGS)
def test_in_bfloat16_losses_are_finite_and_no_parameter_is_bfloat16(name):
    rows, state = losses(smoke(name, MESHES["one device"], "bfloat16"))
    assert all(np.isfinite(value) for row in rows for value in row.values())
    kept = jax.tree_util.tree_leaves_with_path((state.params, state.ema, state.collections))
    assert {leaf.dtype for _, leaf in kept if jax.dtypes.issubdtype(leaf.dtype, np.floating)} == {
        np.dtype("float32")
    }
