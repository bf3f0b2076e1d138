"""Writer of sources to a folder of ArrayRecord shards in the layout of TFDS, without TFDS and
TensorFlow."""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from array_record.python import array_record_module

from vlp_jax.data.prepare.parallel_encoding import Encoded, Encoder, encode_from
from vlp_jax.data.prepare.record_schema import Schema, survey
from vlp_jax.data.prepare.resumable_output import ResumableOutput, unfinished_folder
from vlp_jax.data.samples import LeavesOut, Sample, SampleError, Source
from vlp_jax.data.sources.arrayrecord import TEMPLATE, ArrayRecordSource, shard_name
from vlp_jax.errors import ConfigError, DataError

FORMAT = 2  # version of the output; a command of another version never resumes from these shards
SURVEYED = 10_000  # samples per split, at most, that decide the types of the fields
SAMPLES_A_SHARD = 2_500
COMPRESSIONS = {"none": "uncompressed", "zstd": "zstd:3", "brotli": "brotli:11,transpose:true"}
LISTED = 100  # number of skipped samples that the manifest lists

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """How a data set is written.

    Attributes:
      shards: number of shards of each split; None: one for every 2,500 samples.
      image_format: see `encode_image`.
      image_size: see `downscale_image`; None leaves the size of images unchanged.
      compression: of the records; brotli gives the smallest files, but is slow to write.
      workers: number of processes that encode; the result does not depend on it.
    """

    shards: int | None = None
    image_format: str = "keep"
    image_size: int | None = None
    compression: str = "zstd"
    workers: int = 1


def write_dataset(
    splits: Mapping[str, Source],
    output: str | os.PathLike,
    name: str | None = None,
    options: Options | None = None,
    progress: Progress = lambda split, done, of: None,
) -> dict:
    """Writes `splits` to the new folder `output` and returns its manifest.

    `arrayrecord:OUTPUT/SPLIT` and `tfds.builder_from_directory(OUTPUT).as_data_source(SPLIT)` read
    it. The folder appears under its name only when it is complete. After an interruption of any
    kind, the complete shards are kept in OUTPUT.partial-NAME, and the next call resumes from them.
    The same sources always result in bit-identical files. A bad sample is left out and counted
    in the manifest.

    Args:
      splits: the source of each split.
      output: the new folder.
      name: name of the data set; None: that of the folder.
      options: see `Options`.
      progress: called with the split, the number of samples done and their total number.

    Raises:
      ConfigError: if the folder exists or cannot be written, if a name is invalid, or if
        OUTPUT.partial-NAME was begun with other sources or options.
      DataError: if a split has no good sample.
    """
    options = options or Options()
    output = pathlib.Path(output).absolute()
    name = name or re.sub(r"\W+", "_", output.name.lower())
    for what, given in (("data set", name), *(("split", split) for split in splits)):
        if not re.fullmatch(r"[A-Za-z_]\w*", given, re.ASCII):
            raise ConfigError(
                f"{what} name {given!r}: use letters, digits and _, beginning with a letter"
                + ("; give it by --name=NAME" if what == "data set" else "")
            )
    if output.exists():
        raise ConfigError(f"--output={output} exists; name a new folder, or remove that one first")
    try:
        with ResumableOutput(output, name, _plan(splits, name, options)) as unfinished:
            return _write(splits, name, options, unfinished, progress)
    except OSError as error:
        kept = (
            "; whole shards are kept, run the same command again to resume"
            if unfinished_folder(output, name).is_dir()
            else ""
        )
        raise ConfigError(
            f"--output={output} cannot be written: {error.strerror or error}{kept}"
        ) from error


def _plan(splits: Mapping[str, Source], name: str, options: Options) -> dict[str, Any]:
    """Everything that decides what is written, as values that JSON preserves."""
    versions = {
        package: importlib.metadata.version(package) for package in ("array_record", "pillow")
    }
    sources = {
        split: {"source": source.spec, "fingerprint": source.fingerprint()}
        for split, source in splits.items()
    }
    given = dataclasses.asdict(options)
    del given["workers"]
    return {"format": FORMAT, "name": name, "versions": versions, "splits": sources, **given}


def _write(splits, name, options, unfinished, progress) -> dict:
    schema = _survey_all(splits, options.image_format)
    written = {}
    for split, source in splits.items():
        _write_split(
            name, split, Encoder(source, schema, options.image_size), options, unfinished, progress
        )
        written[split] = _summary(source, unfinished.shards[split])
    manifest = {
        "format": FORMAT,
        "name": name,
        "image_format": options.image_format,
        "image_size": options.image_size,
        "fields": schema.kinds,
        "splits": written,
    }
    _write_json(unfinished.data / "features.json", schema.features())
    _write_json(unfinished.data / "dataset_info.json", _dataset_info(name, written))
    _write_json(unfinished.data / "manifest.json", manifest)
    for split in splits:
        # raises if a shard differs from what should have been written
        ArrayRecordSource(unfinished.data, split)
    unfinished.finish()
    return manifest


def _survey_all(splits: Mapping[str, Source], image_format: str) -> Schema:
    def spread() -> Iterator[Sample]:
        for source in splits.values():
            step = -(-len(source) // SURVEYED)
            for index in range(0, len(source), step):
                with contextlib.suppress(SampleError):
                    yield source[index]

    return survey(
        spread(), all(len(source) <= SURVEYED for source in splits.values()), image_format
    )


def _write_split(name, split, encoder, options, unfinished, progress) -> None:
    """Writes the missing shards of a split.

    A shard holds its part of the source's samples, without the bad ones.
    """
    samples, whole = len(encoder.source), len(unfinished.shards[split])
    shards = min(options.shards or max(1, -(-samples // SAMPLES_A_SHARD)), samples)
    edges = [samples * shard // shards for shard in range(shards + 1)]
    if whole == shards:
        return
    with encode_from(encoder, edges[whole], options.workers) as encoded:
        for shard in range(whole, shards):
            path = unfinished.data / shard_name(name, split, shard, shards)
            entry = _write_shard(
                path,
                itertools.islice(encoded, edges[shard + 1] - edges[shard]),
                options.compression,
                lambda done, before=edges[shard]: progress(split, before + done, samples),
            )
            unfinished.add({"split": split, **entry})


def _write_shard(
    path: pathlib.Path,
    encoded: Iterator[Encoded],
    compression: str,
    progress: Callable[[int], None],
) -> dict:
    """Writes a file that gets its name only when it is complete, and returns its entry in the
    progress file."""
    skipped, keys, count, size, resized = collections.Counter(), [], 0, 0, 0
    temporary = path.with_suffix(".writing")
    writer = array_record_module.ArrayRecordWriter(
        str(temporary), f"group_size:1,{COMPRESSIONS[compression]}"
    )
    try:
        for done, item in enumerate(encoded, start=1):
            if item.record is not None:
                writer.write(item.record)
                count, size, resized = count + 1, size + len(item.record), resized + item.resized
            elif item.error is not None:
                skipped[str(item.error.reason)] += 1
                keys += [f"{item.error.key}: {item.error.message}"] if len(keys) < LISTED else []
            progress(done)
    finally:
        _close(writer)
    with open(temporary, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(temporary, path)
    return {
        "file": path.name,
        "count": count,
        "bytes": size,
        "sha256": digest,
        "size": path.stat().st_size,
        "resized": resized,
        "skipped": skipped,
        "skipped_samples": keys,
    }


def _close(writer: array_record_module.ArrayRecordWriter) -> None:
    try:
        writer.close()  # it writes in the background and reports errors only here
    except RuntimeError as error:
        raise OSError(str(error).split(";")[0]) from error


def _summary(source: Source, shards: list[dict]) -> dict:
    """The manifest's entry of a split."""
    total = sum(shard["count"] for shard in shards)
    keys = [key for shard in shards for key in shard["skipped_samples"]]
    if total == 0:
        raise DataError(
            f"{source.spec}: none of its {len(source)} samples is good; the first: {keys[0]}"
        )
    skipped = sum(
        (collections.Counter(shard["skipped"]) for shard in shards), collections.Counter()
    )
    return {
        "source": source.spec,
        "fingerprint": source.fingerprint(),
        "count": total,
        "bytes": sum(shard["bytes"] for shard in shards),
        "resized": sum(shard["resized"] for shard in shards),
        "skipped": dict(sorted(skipped.items())),
        "skipped_samples": keys[:LISTED],
        "left_out": dict(source.left_out) if isinstance(source, LeavesOut) else {},
        "checksum": hashlib.sha256(
            "".join(shard["sha256"] for shard in shards).encode()
        ).hexdigest(),
        "shards": [
            {key: shard[key] for key in ("file", "count", "bytes", "sha256")} for shard in shards
        ],
    }


def _dataset_info(name: str, written: dict) -> dict:
    splits = [
        {
            "name": split,
            "filepathTemplate": TEMPLATE,
            "numBytes": str(entry["bytes"]),
            "shardLengths": [str(shard["count"]) for shard in entry["shards"]],
        }
        for split, entry in written.items()
    ]
    return {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": splits}


def _write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
