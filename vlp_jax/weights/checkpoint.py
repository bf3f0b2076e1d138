"""Our own checkpoints with weights alone, written from a converted model."""

from typing import TYPE_CHECKING, Any

import jax
import orbax.checkpoint as ocp

from vlp_jax.config import to_tree
from vlp_jax.data.preprocessor import Preprocessor
from vlp_jax.data.targets import named_targets
from vlp_jax.training.checkpoints.checksums import with_checksum
from vlp_jax.training.checkpoints.format import checkpoint_folder, describe, flat
from vlp_jax.training.state import leaf_fingerprints
from vlp_jax.weights.files import check_absent, complete_folder

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

SMALL = 10_000_000  # bytes of arrays that are copied with the largest


def write_checkpoint(
    folder: str,
    config: "Experiment",
    preprocessor: Preprocessor,
    variables: dict[str, Any],
    converted: dict[str, Any],
) -> None:
    """Writes a workdir with one checkpoint, of step 0, which has no optimizer.

    `vlp_jax.load`, evaluation and `pretrained` read it as that of a run; training does not resume
    from it. The folder is written under another name and then renamed.

    Args:
      folder: the workdir; it must not exist, or be empty.
      config: the config of the model.
      preprocessor: its preprocessing.
      variables: {"params": ...} and other collections.
      converted: JSON about where they come from.
    Raises:
      ConfigError: the folder exists, or cannot be written.
    """
    check_absent(folder)
    collections = {name: tree for name, tree in variables.items() if name != "params"}
    items = {"params": variables["params"]}
    if collections:
        items["collections"] = flat(collections)
    metadata = with_checksum(
        {
            "step": 0,
            "config": to_tree(config),
            "preprocessor": preprocessor.to_json(),
            "class_descriptions": None,
            "targets": named_targets(config.data.targets).to_json(),
            "converted": converted,
            "parameters": describe(items["params"]),
            "rest": {},
            "collections": describe(items.get("collections", {})),
            "fingerprints": {name: leaf_fingerprints(item) for name, item in items.items()},
        }
    )
    with complete_folder(folder) as unfinished:
        write_items(checkpoint_folder(unfinished), items, metadata)


def write_items(folder: str, items: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Writes the items and metadata of checkpoint 0, one array after another."""
    largest = max(leaf.nbytes for item in items.values() for leaf in jax.tree.leaves(item))
    in_turn: Any = (largest + SMALL) / 1e9  # gigabytes, of which copies are made at a time
    handlers = {name: ocp.StandardCheckpointHandler(save_concurrent_gb=in_turn) for name in items}
    trees = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    with ocp.CheckpointManager(
        folder,
        item_handlers={**handlers, "metadata": ocp.JsonCheckpointHandler()},
        options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False),
    ) as manager:
        manager.save(0, args=ocp.args.Composite(metadata=ocp.args.JsonSave(metadata), **trees))
