"""Integrity of checkpoints: a fingerprint of every array and a SHA-256 of the metadata.

The fingerprints are computed on the devices while saving and are part of the metadata. Nothing is
read back from disk.
"""

import hashlib
import json
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.training.checkpoints.read_errors import DamagedCheckpoint
from vlp_jax.training.state import leaf_fingerprints

# Version of the checkpoint format. Format 1 had no checksum of the metadata; format 2 had other
# names of parts and config keys.
FORMAT = 4


def with_checksum(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata (JSON) with `format` and `sha256` added."""
    versioned = metadata | {"format": FORMAT}
    return versioned | {"sha256": checksum(versioned)}


def checksum(metadata: dict[str, Any]) -> str:
    """SHA-256 of JSON without its own key `sha256`, independent of key order and whitespace."""
    others = json.loads(
        json.dumps({key: value for key, value in metadata.items() if key != "sha256"})
    )
    return hashlib.sha256(
        json.dumps(others, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def check_metadata(metadata: Any, step: int, where: str) -> None:
    """Checks that metadata are those written for the checkpoint of this step.

    Raises:
      CheckpointError: they have another format.
      DamagedCheckpoint: they are not what was written.
    """
    if not isinstance(metadata, dict) or not {"format", "sha256"} & metadata.keys():
        if isinstance(metadata, dict) and {"parameters", "fingerprints"} <= metadata.keys():
            raise another_format(1, where)
        raise DamagedCheckpoint("metadata/metadata: lacks its checksum")
    version = metadata.get("format")
    if isinstance(version, int) and version != FORMAT:
        raise another_format(version, where)
    if metadata.get("sha256") != checksum(metadata):
        raise DamagedCheckpoint("metadata/metadata: its contents changed after it was written")
    for name in ("step", "position"):  # every update consumes a batch, also a skipped one
        if metadata.get(name, step) != step:
            raise DamagedCheckpoint(
                f"metadata/metadata: its {name} is {metadata[name]}, not "
                f"{step}: was the folder renamed?"
            )


def another_format(version: int, where: str) -> CheckpointError:
    """The error for a checkpoint written by another version of this code."""
    return CheckpointError(
        f"{where}: is of checkpoint format {version}, and this version of "
        f"vlp_jax reads format {FORMAT}; use the version that wrote it, or "
        "another workdir"
    )


def check_arrays(item: Any, name: str, metadata: dict[str, Any]) -> None:
    """Checks the arrays of an item against their stored fingerprints.

    Raises:
      DamagedCheckpoint: the message names the first array that is not what was written.
    """
    stored, found = metadata["fingerprints"][name], leaf_fingerprints(item)
    changed = sorted(
        path for path in stored.keys() | found.keys() if stored.get(path) != found.get(path)
    )
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise DamagedCheckpoint(
            f"{name}: {changed[0]}{more}: its contents changed after it was written"
        )
