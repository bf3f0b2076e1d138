"""ArrayRecord folders in the layout of TFDS, written by `python -m vlp_jax.prepare` or by TFDS
itself.

dataset_info.json holds the splits and the number of records of every shard, features.json the type
of every field, and NAME-SPLIT.array_record-00000-of-00004 the records (tf.train.Example). `prepare`
adds manifest.json. Reading needs neither TFDS nor TensorFlow. A folder may be in `gs://`, which
ArrayRecord reads itself (the JSON files need gcsfs).
"""

import os
import resource
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from array_record.python import array_record_module

from vlp_jax.data.samples import Reason, Sample, SampleError, check_index, fingerprint_of
from vlp_jax.data.sources.filesystem import join, refuse_remote, size_or_none
from vlp_jax.data.sources.record_fields import read_fields, read_json, read_manifest
from vlp_jax.data.sources.tf_example import decode_example
from vlp_jax.errors import DataError

AT_ONCE = 8  # shards that are checked at the same time
MOST_READERS = 4096
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def shard_name(dataset: str, split: str, shard: int, shards: int, template: str = TEMPLATE) -> str:
    """File name of one shard, in the form that TFDS uses.

    Args:
      dataset: name of the data set.
      split: name of the split.
      shard: number of the shard, from 0 on.
      shards: number of shards of the split.
      template: file name with {DATASET}, {SPLIT}, {FILEFORMAT} and {SHARD_X_OF_Y}.
    """
    of = f"{shard:05d}-of-{shards:05d}"
    parts = {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": "array_record", "SHARD_X_OF_Y": of}
    for name, value in parts.items():
        template = template.replace("{" + name + "}", value)
    return template


def check_shards(paths: list[str], lengths: list[int], spec: str) -> list[int]:
    """Sizes of ArrayRecord files in bytes.

    Args:
      paths: the shards.
      lengths: expected number of records of each shard.
      spec: name of the source in messages.

    Raises:
      DataError: if a shard is missing or damaged, or has another number of records.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(
            pool.map(lambda path, length: _check_shard(path, length, paths, spec), paths, lengths)
        )


def _open(path: str):
    """A reader of single records at random: it does not read ahead and starts no threads."""
    options = "readahead_buffer_size:0,max_parallelism:0"
    return array_record_module.ArrayRecordReader(path, options, file_reader_buffer_size=32768)


def readers_kept() -> int:
    """Number of readers that a process keeps open.

    Each one has an open file and takes 10 bytes a record.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        MOST_READERS if limit == resource.RLIM_INFINITY else max(16, min(MOST_READERS, limit // 2))
    )


def _check_shard(path: str, length: int, paths: list[str], spec: str) -> int:
    size, name = size_or_none(path), os.path.basename(path)
    if size is None:  # the reader raises nothing for a missing file
        present = sum(size_or_none(path) is not None for path in paths)
        raise DataError(f"{spec}: {name} is missing; {present} of {len(paths)} shards found")
    reader = _open(path)
    if not reader.ok():
        raise DataError(f"{spec}: {name} is damaged or not an ArrayRecord file")
    found = reader.num_records()
    reader.close()
    if found != length:
        raise DataError(f"{spec}: {name} holds {found} records; dataset_info.json lists {length}")
    return size


class ArrayRecordSource:
    """One split of a folder in the layout of TFDS.

    Args:
      directory: the folder with dataset_info.json.
      split: name of one of its splits.
      spec: name of the source in messages.

    Raises:
      DataError: for an unknown split, a folder of another file format, a data set without image or
        caption field, and a shard that is missing or differs in its number of records from
        dataset_info.json or manifest.json.
    """

    _readers: OrderedDict[int, array_record_module.ArrayRecordReader]
    _lock: threading.Lock
    _process: int

    def __init__(self, directory: str | os.PathLike[str], split: str, spec: str | None = None):
        directory = os.fspath(directory)
        self.spec = spec or f"arrayrecord:{directory}/{split}"
        info = read_json(join(directory, "dataset_info.json"), self.spec)
        if info.get("fileFormat") != "array_record":
            raise DataError(
                f"{self.spec}: written as {info.get('fileFormat', 'tfrecord')}; only "
                "array_record is read"
            )
        splits = {entry["name"]: entry for entry in info.get("splits", ())}
        if split not in splits:
            raise DataError(
                f"{self.spec}: no split {split!r}; splits: {', '.join(splits) or 'none'}"
            )
        self.split = split
        self.lengths = [int(length) for length in splits[split].get("shardLengths", ())]
        template = splits[split].get("filepathTemplate", TEMPLATE)
        count = len(self.lengths)
        self.paths = [
            join(directory, shard_name(info["name"], split, i, count, template))
            for i in range(count)
        ]
        self.starts = np.cumsum([0, *self.lengths])
        manifest = read_manifest(directory, self.spec)
        self._check_manifest(manifest)
        self.fields = read_fields(directory, manifest, self.spec)
        self._bytes = check_shards(self.paths, self.lengths, self.spec)
        self.__setstate__({})

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        name = f"{self.split}-{index}"
        try:
            record = self._reader(shard).read([index - int(self.starts[shard])])[0]
            values = decode_example(record)
        except (ValueError, RuntimeError, IndexError) as error:
            raise SampleError(
                Reason.DAMAGED_RECORD, name, f"damaged record in {self.paths[shard]}: {error}"
            ) from error
        return self.fields.sample(name, values)

    def fingerprint(self) -> str:
        """Hash of the names, lengths and sizes of the shards."""
        names = [os.path.basename(path) for path in self.paths]
        return fingerprint_of("arrayrecord", names, self.lengths, self._bytes)

    def _check_manifest(self, manifest: dict) -> None:
        shards = manifest.get("splits", {}).get(self.split, {}).get("shards")
        if shards is None:
            return
        listed = {shard["file"]: shard["count"] for shard in shards}
        expected = {
            os.path.basename(path): length
            for path, length in zip(self.paths, self.lengths, strict=True)
        }
        for name in expected | listed:
            if listed.get(name) != expected.get(name):
                raise DataError(
                    f"{self.spec}: manifest.json lists {listed.get(name, 'no')} "
                    f"records in {name}, dataset_info.json "
                    f"{expected.get(name, 'none')}; the files are not of one run of "
                    "prepare, which must run again"
                )

    def _reader(self, shard: int):
        # a forked process must not use the threads and files of its parent
        if self._process != os.getpid():
            self.__setstate__({})
        with self._lock:
            if shard not in self._readers:
                reader = _open(self.paths[shard])
                if not reader.ok():
                    raise DataError(f"{self.spec}: {self.paths[shard]} can no longer be read")
                self._readers[shard] = reader
                if len(self._readers) > readers_kept():
                    # another thread may still read from it; it closes after that
                    self._readers.popitem(last=False)
            self._readers.move_to_end(shard)
            return self._readers[shard]

    def __getstate__(self):
        own = ("_readers", "_lock", "_process")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state):
        self.__dict__.update(
            state, _readers=OrderedDict(), _lock=threading.Lock(), _process=os.getpid()
        )


def open_arrayrecord(rest: str) -> ArrayRecordSource:
    """The split DIR/SPLIT.

    Raises:
      DataError: if `rest` is not of this form or on an unsupported storage; see
        `ArrayRecordSource`.
    """
    refuse_remote(rest, f"arrayrecord:{rest}", supported=("gs",))
    whole = os.path.expanduser(rest.rstrip("/"))
    directory, _, split = whole.rpartition("/")
    if not directory or size_or_none(join(whole, "dataset_info.json")) is not None:
        raise DataError(
            f"arrayrecord:{rest}: write DIR/SPLIT, such as arrayrecord:{rest.rstrip('/')}/train"
        )
    return ArrayRecordSource(directory, split, spec=f"arrayrecord:{rest}")
