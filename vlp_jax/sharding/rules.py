"""Rules that map logical axes to mesh axes: a preset per strategy, after the rules of the
config."""

import difflib
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from vlp_jax.errors import ConfigError, MeshError
from vlp_jax.sharding.layout import Layout, Rules
from vlp_jax.sharding.mesh import MESH_AXES, MeshConfig

BATCH: Rules = (("batch", ("data", "fsdp")),)
# Parameters are sharded along the width, the one axis that every large one has, and gathered where
# they are used (Rajbhandari et al. 2020, "ZeRO", stage 3).
FSDP: Rules = (("embed", "fsdp"),)
# Heads and hidden units are sharded; the residual stream is replicated (Shoeybi et al. 2019,
# "Megatron-LM").
TENSOR: Rules = (
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("activation_heads", "tensor"),
    ("activation_mlp", "tensor"),
)
WHOLE: Rules = tuple(
    (axis, None)
    for axis in (
        "embed",
        "vocab",
        "heads",
        "mlp",
        "head_dim",
        "embedding",
        "patch",
        "layers",
        "kernel_height",
        "kernel_width",
        "channels",
        "state",
        "scores",
        "targets",
        "patches",
        "mean_and_patches",
        "patch_rows",
        "patch_columns",
        "text_positions",
        "tokens",
        "activation_embed",
        "activation_heads",
        "activation_mlp",
    )
)

PRESETS: dict[str, Rules] = {
    "data": BATCH + WHOLE,
    "fsdp": BATCH + FSDP + WHOLE,
    "tensor": BATCH + TENSOR + WHOLE,
    "fsdp+tensor": BATCH + FSDP + TENSOR + WHOLE,
}
LOGICAL_AXES = tuple(dict.fromkeys(axis for axis, _ in PRESETS["fsdp+tensor"]))


def build_layout(config: MeshConfig, mesh: Mesh | AbstractMesh) -> Layout:
    """The layout on `mesh` that a config describes.

    Without a strategy the rules are those of "fsdp+tensor": a mesh axis of size 1 divides nothing.

    Raises:
      ConfigError: a rule has unknown axes, or the axis of the strategy is fixed at 1.
      MeshError: some devices would only repeat the work of others.
    """
    strategy = config.strategy or "fsdp+tensor"
    sizes: dict[str, int] = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    for axis in strategy.split("+") if config.strategy else ():
        if sizes[axis] == 1 and axis != "data":
            raise ConfigError(
                f"mesh.strategy: {strategy!r} divides over {axis}, and mesh.{axis} "
                "is 1; set it to the number of devices that share a copy, or to -1 "
                "(with mesh.data=1)"
            )
    rules = tuple(override(rule) for rule in config.rules) + PRESETS[strategy]
    used = {axis for _, axes in rules for axis in as_tuple(axes)}
    for axis, size in mesh.shape.items():
        if size > 1 and axis not in used:
            raise MeshError(
                f"mesh {axis}={size}: no rule of strategy {strategy!r} divides over "
                f"{axis}, so {size} devices would do the same; use mesh.{axis}=1 or "
                "another mesh.strategy"
            )
    return Layout(mesh, rules, config.replicate_below)


def override(rule: tuple[str, ...]) -> tuple[str, Any]:
    """A rule of the config, (logical axis, mesh axes...), checked.

    Raises:
      ConfigError: an axis is unknown; the message names the nearest one.
    """
    if not rule:
        raise ConfigError(
            "mesh.rules: a rule is a logical axis and the mesh axes it lies on, got an empty one"
        )
    for name, known, kind in (
        (rule[0], LOGICAL_AXES, "logical"),
        *((axis, MESH_AXES, "mesh") for axis in rule[1:]),
    ):
        if name not in known:
            closest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"mesh.rules: {rule}: there is no {kind} axis {name!r} (did you mean {closest!r}?)"
            )
    if len(set(rule)) < len(rule):
        raise ConfigError(f"mesh.rules: {rule}: names an axis twice")
    return rule[0], rule[1:] or None


def as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes of one dimension in any notation: "fsdp" -> ("fsdp",), None -> ()."""
    return (axes,) if isinstance(axes, str) else tuple(axes or ())
