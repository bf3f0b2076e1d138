"""The folder of a run: its config, and checks that two experiments are not mixed in it."""

import fnmatch
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlp_jax.config import flatten, to_config, to_tree
from vlp_jax.distributed.exchange import broadcast_from_primary, exchange
from vlp_jax.errors import ConfigError
from vlp_jax.storage.bucket import keys_below
from vlp_jax.storage.files import is_file, make_folder, read_text, write_atomically
from vlp_jax.storage.orbax_buckets import need_package
from vlp_jax.storage.paths import check_place, is_bucket

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment

# Keys that may change within a run, as on another machine: they change results only by rounding.
SPEED_ONLY = (
    "data.workers",
    "data.threads",
    "data.prefetch",
    "mesh.*",
    "hosts.*",
    "watchdog.*",
    "profile.*",
    "writers.*",
    "model.*.rematerialisation",
    "model.*.saved",
    "model.*.attention",
    "objectives.*.implementation",
    "objectives.*.chunk_size",
)
# Keys of the section `model` that change no output of a trained model.
TRAINING_ONLY = (
    *SPEED_ONLY,
    "model.*.scan",
    "model.*dropout",
    "model.*.stochastic_depth",
    "model.*.token_drop",
    "model.*.initialization",
    "model.*_std",
    "model.text.word_vectors",
    "model.text.word_overlap",
)
FOLDERS, FILES = (
    ("checkpoints", "tensorboard"),
    ("config.json", "metrics.jsonl", "lock", "newest_checkpoint"),
)


def check_workdir(workdir: str, config: "Experiment", accept_changes: bool) -> list[str]:
    """The differences between `config` and the one the workdir was started with.

    They are found on the primary process.

    Returns: lines `key: old -> new`.
    Raises:
      ConfigError: the folder cannot exist, or something differs and `accept_changes` is False.
    """
    return broadcast_from_primary(
        "--workdir", lambda: compare_workdir(workdir, config, accept_changes)
    )


def compare_workdir(workdir: str, config: "Experiment", accept_changes: bool) -> list[str]:
    """`check_workdir` in one process."""
    check_place("--workdir", workdir)
    if is_bucket(workdir):
        need_package(workdir)
        check_kinds_in_bucket(workdir)
    else:
        check_folder(workdir)
        check_kinds(workdir)
    changes = config_changes(workdir, config)
    if changes and not accept_changes:
        raise ConfigError(
            f"--workdir: {workdir} was started with another config: "
            f"{'; '.join(changes)}; use the old values, another workdir, or "
            "--accept-changes to go on with the new ones"
        )
    return changes


def check_folder(workdir: str) -> None:
    """Checks that a local workdir exists or can be created, and be written.

    Raises:
      ConfigError: it cannot.
    """
    place = os.path.abspath(workdir)
    while not os.path.isdir(place):
        if os.path.lexists(place):
            raise ConfigError(f"--workdir: {place} is a file, not a folder; choose another path")
        place = os.path.dirname(place)
    if not os.access(place, os.W_OK):
        raise ConfigError(f"--workdir: no permission to write in {place}")


def check_kinds_in_bucket(workdir: str) -> None:
    """`check_kinds` of a workdir in a bucket, whose objects are listed.

    Raises:
      ConfigError: as `check_kinds`, or there is no such bucket.
      UserError: the bucket does not answer, or refuses.
    """
    for key in keys_below(workdir):
        top, below, _ = key.partition("/")
        if (top in FILES and below) or (top in FOLDERS and not below):
            kind = "folder" if top in FOLDERS else "file"
            raise ConfigError(
                f"--workdir: {workdir}/{top} is no {kind}, as the run's own is; move it away, or "
                "use another workdir"
            )


def check_kinds(workdir: str) -> None:
    """Checks that the names which the run writes in a workdir are files and folders as they should
    be.

    Raises:
      ConfigError: a file has the name of a folder, or the other way round.
    """
    for name in (*FOLDERS, *FILES):
        path, wanted = (
            os.path.join(workdir, name),
            os.path.isdir if name in FOLDERS else os.path.isfile,
        )
        if os.path.lexists(path) and not wanted(path):
            kind = "folder" if name in FOLDERS else "file"
            raise ConfigError(
                f"--workdir: {path} is no {kind}, as the run's own is; move it "
                "away, or use another workdir"
            )


def config_changes(workdir: str, config: "Experiment") -> list[str]:
    """Lines `key: old -> new`; none in a fresh folder, and none for keys that do not change
    results."""
    path = os.path.join(workdir, "config.json")
    if not is_file(path):
        return []
    try:
        tree = json.loads(read_text(path))
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__}")
        old = flatten(completed(tree))
    except ValueError as error:
        raise ConfigError(
            f"{path}: cannot be read as JSON ({error}); remove it to go on with the config given"
        ) from error
    return changed_keys(old, flatten(json.loads(json.dumps(to_tree(config)))))


def changed_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], ignored: Sequence[str] = SPEED_ONLY
) -> list[str]:
    """Lines `key: old -> new` of the dotted keys that differ, without those that match a pattern of
    `ignored`."""
    absent = object()
    return [
        f"{key}: {old.get(key, '(absent)')!r} -> {new.get(key, '(absent)')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent)
        and not any(fnmatch.fnmatch(key, pattern) for pattern in ignored)
    ]


def completed(tree: dict) -> dict:
    """A stored config with the defaults of keys added later; unchanged where it is no longer
    valid."""
    try:
        return json.loads(json.dumps(to_tree(to_config(tree, allowed=()))))
    except ConfigError:
        return tree


def claim_workdir(workdir: str, config: "Experiment") -> None:
    """Creates the folder and writes `config.json`, on the primary process.

    Raises:
      ConfigError: the folder cannot be written, or another process does not see the file.
    """
    broadcast_from_primary("--workdir", lambda: write_config(workdir, config))
    for host, sees in enumerate(
        exchange("--workdir", appears(os.path.join(workdir, "config.json")))
    ):
        if not sees:
            raise ConfigError(
                f"--workdir: host {host} does not see what host 0 wrote to "
                f"{workdir}: hosts need one shared folder"
            )


def appears(path: str, patience: float = 20.0) -> bool:
    """Whether a file exists, or appears within `patience` seconds, as it may on network file
    systems."""
    deadline = time.monotonic() + patience
    while not is_file(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def write_config(workdir: str, config: "Experiment") -> None:
    """`claim_workdir` in one process."""
    try:
        make_folder(workdir)
        write_atomically(
            os.path.join(workdir, "config.json"), json.dumps(to_tree(config), indent=2) + "\n"
        )
    except OSError as error:
        raise ConfigError(f"--workdir: {workdir} cannot be written: {error.strerror}") from error
