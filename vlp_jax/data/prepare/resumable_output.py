"""An output folder that is written shard by shard, so that a stopped command can resume with the
next shard."""

import fcntl
import json
import os
import pathlib
import shutil
from typing import Any

from vlp_jax.config.tree import flatten
from vlp_jax.errors import ConfigError


def unfinished_folder(output: pathlib.Path, name: str) -> pathlib.Path:
    """The folder that holds the contents of `output` until they are complete."""
    return output.with_name(f"{output.name}.partial-{name}")


class ResumableOutput:
    """An unfinished output folder, OUTPUT.partial-NAME.

    It has `data` with complete shards, and progress.jsonl with one line for the plan and one for
    each shard. The plan is everything that decides what is written. Shards of another plan are
    never mixed in, nor deleted.

    Args:
      output: the final folder.
      name: name of the data set.
      plan: the plan, as JSON returns it; `splits` is a mapping by split.

    Attributes:
      folder: the unfinished folder.
      data: the folder of the shards.
      shards: the entries of the complete shards, by split, in order.

    Raises:
      ConfigError: if the folder has complete shards of another plan, or if another process writes
        to it.
    """

    def __init__(self, output: pathlib.Path, name: str, plan: dict[str, Any]):
        self.output = output
        self.folder = unfinished_folder(output, name)
        self.data, self.log = self.folder / "data", self.folder / "progress.jsonl"
        self.data.mkdir(parents=True, exist_ok=True)
        self._lock()
        try:
            self._take_up(plan)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ResumableOutput":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Closes the folder and keeps complete shards; after an error it removes a folder without
        any."""
        if kind is not None and not any(
            entry["count"] for entries in self.shards.values() for entry in entries
        ):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def _take_up(self, plan: dict[str, Any]) -> None:
        lines = self._read()
        if len(lines) > 1 and lines[0] != plan:
            raise ConfigError(
                f"{self.folder} holds {len(lines) - 1} shard(s) of another command "
                f"({difference(lines[0], plan)}); give that command again to go on "
                "with them, or remove the folder to start over"
            )
        entries = lines[1:] if lines and lines[0] == plan else []
        self.shards = {split: [] for split in plan["splits"]}
        for entry in entries:
            if not self._is_whole(entry):
                break
            self.shards[entry["split"]].append(entry)
        kept = [entry for entries in self.shards.values() for entry in entries]
        self._sweep({entry["file"] for entry in kept})
        self._rewrite([plan, *kept])

    def add(self, entry: dict[str, Any]) -> None:
        """Records a shard as complete.

        Args:
          entry: its `split`, `file`, `size` (of the file), `count` (of its records), and any
            further values to keep.
        """
        _sync(self.data / entry["file"])
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        _sync(self.log)
        self.shards[entry["split"]].append(entry)

    def finish(self) -> None:
        """Gives `data` its final name and removes the rest."""
        os.rename(self.data, self.output)
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Releases the lock, so that other processes can use the folder."""
        os.close(self._held)

    def _lock(self) -> None:
        self._held = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(
                f"{self.folder} is being written by another process; wait for it, or stop it"
            ) from None
        except OSError:  # some network file systems have no locks
            pass

    def _read(self) -> list[dict[str, Any]]:
        """The complete lines of the log; the last one may be truncated."""
        if not self.log.exists():
            return []
        lines = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def _is_whole(self, entry: dict[str, Any]) -> bool:
        path = self.data / entry["file"]
        return path.is_file() and path.stat().st_size == entry["size"]

    def _sweep(self, keep: set[str]) -> None:
        for path in self.data.iterdir():
            if path.name not in keep:
                path.unlink()

    def _rewrite(self, lines: list[dict[str, Any]]) -> None:
        temporary = self.log.with_suffix(".writing")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        _sync(temporary)
        os.replace(temporary, self.log)


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first value in which two plans differ, in words."""
    before, now = flatten(old), flatten(new)
    name = next(name for name in sorted({*before, *now}) if before.get(name) != now.get(name))
    return f"{name} was {before.get(name)!r}, now {now.get(name)!r}"


def _sync(path: pathlib.Path) -> None:
    """Waits until the file is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
