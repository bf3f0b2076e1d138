"""A folder that is being written shard by shard, so that a command which was stopped can go on with the next one."""

import fcntl
import json
import os
import pathlib
import shutil
from typing import Any

from vlp_jax.config.parse import flatten
from vlp_jax.errors import ConfigError


def unfinished_folder(output: pathlib.Path, name: str) -> pathlib.Path:
    """Where what belongs in `output` lies until it is whole."""
    return output.with_name(f"{output.name}.partial-{name}")


class ResumableOutput:
    """OUTPUT.partial-NAME: `data` with whole shards, and progress.jsonl with a line on the plan and one on each of them.

    The plan is everything that decides what is written. Shards of another plan are never mixed with, nor deleted.
    Attributes: folder. data: where shards belong. shards: the entries of those that are whole, by split, in order.
    Raises: ConfigError if whole shards of another plan are there, or another process is at work on them.
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
        """What is whole stays for the next command; a folder in which nothing is yet goes."""
        if kind is not None and not any(entry["count"] for entries in self.shards.values() for entry in entries):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def _take_up(self, plan: dict[str, Any]) -> None:
        lines = self._read()
        if len(lines) > 1 and lines[0] != plan:
            raise ConfigError(f"{self.folder} holds {len(lines) - 1} shard(s) of another command ({difference(lines[0], plan)}); "
                              "give that command again to go on with them, or remove the folder to start over")
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
        """Counts a shard as whole. entry: its `split`, `file`, `size` (of the file), `count` (of what
        is in it) and whatever else is to be kept."""
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
        """Lets other processes at the folder."""
        os.close(self._held)

    def _lock(self) -> None:
        self._held = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(f"{self.folder} is being written by another process; wait for it, or stop it") from None
        except OSError:  # some network file systems have no locks
            pass

    def _read(self) -> list[dict[str, Any]]:
        """The whole lines; the last one may be torn."""
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
