"""Writes sources as a TFDS-layout folder of ArrayRecord shards, without TFDS and without TensorFlow."""

import collections
import contextlib
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping

from array_record.python import array_record_module

from vlp_jax.data.arrayrecord import TEMPLATE, ArrayRecordSource, shard_name
from vlp_jax.data.records import Schema, survey
from vlp_jax.data.samples import Sample, SampleError, Source
from vlp_jax.errors import ConfigError, DataError

SURVEYED = 10_000  # samples a split that decide the types of the fields
SAMPLES_A_SHARD = 2_500
COMPRESSIONS = {"none": "uncompressed", "zstd": "zstd:3", "brotli": "brotli:11,transpose:true"}
LISTED = 100  # keys of skipped samples that the manifest names

Progress = Callable[[str, int, int], None]


def write_dataset(
    splits: Mapping[str, Source],
    output: str | os.PathLike,
    name: str | None = None,
    shards: int | None = None,
    image_format: str = "keep",
    compression: str = "zstd",
    workers: int = 1,
    progress: Progress = lambda split, done, of: None,
) -> dict:
    """Writes `splits` to the new folder `output` and returns its manifest.

    `arrayrecord:OUTPUT/SPLIT` and `tfds.builder_from_directory(OUTPUT).as_data_source(SPLIT)` read it. The folder
    appears under its name only when it is whole; the same sources always give the same shards, byte for byte. A bad
    sample is left out, and counted in the manifest.
    Args: name: the data set's, the folder's if None. shards: of each split, by default one for every 2,500 samples.
      image_format: see `encode_image`. compression: of records; brotli is the smallest and slow to write.
      workers: processes that encode. progress: called with the split, the samples done and their number.
    Raises: ConfigError if the folder exists or a name is not one; DataError if a split has no good sample.
    """
    output = pathlib.Path(output).absolute()
    name = name or re.sub(r"\W+", "_", output.name.lower())
    for what, given in (("data set", name), *(("split", split) for split in splits)):
        if not re.fullmatch(r"[A-Za-z_]\w*", given, re.ASCII):
            raise ConfigError(f"{what} name {given!r}: use letters, digits and _, beginning with a letter")
    if output.exists():
        raise ConfigError(f"--output={output} exists; name a new folder, or remove that one first")
    partial = output.with_name(f"{output.name}.partial-{name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    schema = _survey_all(splits, image_format)
    options = f"group_size:1,{COMPRESSIONS[compression]}"
    written = {}
    for split, source in splits.items():
        count = shards or max(1, -(-len(source) // SAMPLES_A_SHARD))
        written[split] = _write_split(partial, name, split, source, min(count, len(source)), schema, options, workers, progress)
    manifest = {"format": 1, "name": name, "image_format": image_format, "fields": schema.kinds, "splits": written}
    _write_json(partial / "features.json", schema.features())
    _write_json(partial / "dataset_info.json", _dataset_info(name, written))
    _write_json(partial / "manifest.json", manifest)
    for split in splits:
        ArrayRecordSource(partial, split)  # raises if a shard is not what was meant to be written
    os.rename(partial, output)
    return manifest


def _survey_all(splits: Mapping[str, Source], image_format: str) -> Schema:
    def spread() -> Iterator[Sample]:
        for source in splits.values():
            step = -(-len(source) // SURVEYED)
            for index in range(0, len(source), step):
                with contextlib.suppress(SampleError):
                    yield source[index]

    return survey(spread(), all(len(source) <= SURVEYED for source in splits.values()), image_format)


def _write_split(folder, name, split, source, shards, schema, options, workers, progress) -> dict:
    skipped, keys, entries = collections.Counter(), [], []
    with _records(source, schema, workers) as records:
        for shard in range(shards):
            first, last = (len(source) * edge // shards for edge in (shard, shard + 1))
            path = folder / shard_name(name, split, shard, shards)
            writer = array_record_module.ArrayRecordWriter(str(path), options)
            count = size = 0
            for index in range(first, last):
                record = next(records)
                if isinstance(record, SampleError):
                    skipped[str(record.reason)] += 1
                    keys.append(f"{record.key}: {record.message}")
                else:
                    writer.write(record)
                    count, size = count + 1, size + len(record)
                progress(split, index + 1, len(source))
            writer.close()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            entries.append({"file": path.name, "count": count, "bytes": size, "sha256": digest})
    total = sum(entry["count"] for entry in entries)
    if total == 0:
        raise DataError(f"{source.spec}: none of its {len(source)} samples is good; the first: {keys[0]}")
    return {
        "source": source.spec,
        "fingerprint": source.fingerprint(),
        "count": total,
        "bytes": sum(entry["bytes"] for entry in entries),
        "skipped": dict(sorted(skipped.items())),
        "skipped_samples": keys[:LISTED],
        "checksum": hashlib.sha256("".join(entry["sha256"] for entry in entries).encode()).hexdigest(),
        "shards": entries,
    }


@contextlib.contextmanager
def _records(source: Source, schema: Schema, workers: int) -> Iterator[Iterator[bytes | SampleError]]:
    """An iterator of the records of a source, in its order, encoded in this process or in others."""
    if workers <= 1:
        yield (_encode(source, schema, index) for index in range(len(source)))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (source, schema)) as pool:
        yield pool.imap(_encode_in_worker, range(len(source)), chunksize=16)


def _encode(source: Source, schema: Schema, index: int) -> bytes | SampleError:
    try:
        return schema.encode(source[index])
    except SampleError as error:
        return error


def _start_worker(source: Source, schema: Schema) -> None:
    global _worker_task
    _worker_task = (source, schema)


def _encode_in_worker(index: int) -> bytes | SampleError:
    return _encode(*_worker_task, index)


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
