"""ArrayRecord folders in the layout of TFDS, as `python -m vlp_jax.prepare` and TFDS itself write them.

dataset_info.json holds the splits and the number of records of every shard, features.json the type of every field,
NAME-SPLIT.array_record-00000-of-00004 the records (tf.train.Example); `prepare` adds manifest.json. Neither TFDS nor
TensorFlow is needed to read them.
"""

import json
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from array_record.python import array_record_module

from vlp_jax.data.example import decode_example
from vlp_jax.data.samples import Reason, Sample, SampleError, check_captions, check_index, fingerprint_of
from vlp_jax.errors import DataError

TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
CAPTION_FIELDS = ("captions", "caption", "text")


def shard_name(dataset: str, split: str, shard: int, shards: int, template: str = TEMPLATE) -> str:
    """The file name of one shard, as TFDS forms it."""
    of = f"{shard:05d}-of-{shards:05d}"
    parts = {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": "array_record", "SHARD_X_OF_Y": of}
    for name, value in parts.items():
        template = template.replace("{" + name + "}", value)
    return template


def _read_json(path: pathlib.Path, spec: str) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{spec}: {path} is missing; expected a folder written by vlp_jax.prepare or by TFDS") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{spec}: {path} cannot be read: {error}") from error


class ArrayRecordSource:
    """One split of a TFDS-layout folder.

    Args: directory: the folder with dataset_info.json. split: a name in it. spec: what messages call this source.
    Raises: DataError for an unknown split, a folder of another file format, a set without image or caption field, and
      a shard that is missing or does not hold the number of records that dataset_info.json says.
    """

    def __init__(self, directory: str | os.PathLike, split: str, spec: str | None = None):
        directory = pathlib.Path(directory)
        self.spec = spec or f"arrayrecord:{directory}/{split}"
        info = _read_json(directory / "dataset_info.json", self.spec)
        if info.get("fileFormat") != "array_record":
            raise DataError(f"{self.spec}: written as {info.get('fileFormat', 'tfrecord')}; only array_record is read")
        splits = {entry["name"]: entry for entry in info.get("splits", ())}
        if split not in splits:
            raise DataError(f"{self.spec}: no split {split!r}; splits: {', '.join(splits) or 'none'}")
        self.split = split
        self.lengths = [int(length) for length in splits[split].get("shardLengths", ())]
        template = splits[split].get("filepathTemplate", TEMPLATE)
        count = len(self.lengths)
        self.paths = [str(directory / shard_name(info["name"], split, i, count, template)) for i in range(count)]
        self.starts = np.cumsum([0, *self.lengths])
        self.fields = read_fields(directory, self.spec)
        self._bytes = [self._check_shard(path, length) for path, length in zip(self.paths, self.lengths, strict=True)]
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
            raise SampleError(Reason.DAMAGED_RECORD, name, f"damaged record in {self.paths[shard]}: {error}") from error
        return self.fields.sample(name, values)

    def fingerprint(self) -> str:
        """Stands for the names, lengths and sizes of the shards."""
        names = [os.path.basename(path) for path in self.paths]
        return fingerprint_of("arrayrecord", names, self.lengths, self._bytes)

    def _check_shard(self, path: str, length: int) -> int:
        name = os.path.basename(path)
        if not os.path.isfile(path):  # the reader of a missing file raises nothing
            present = sum(map(os.path.isfile, self.paths))
            raise DataError(f"{self.spec}: {name} is missing; {present} of {len(self.paths)} shards found")
        reader = array_record_module.ArrayRecordReader(path)
        if not reader.ok():
            raise DataError(f"{self.spec}: {name} is damaged or not an ArrayRecord file")
        found = reader.num_records()
        reader.close()
        if found != length:
            raise DataError(f"{self.spec}: {name} holds {found} records; dataset_info.json says {length}")
        return os.path.getsize(path)

    def _reader(self, shard: int):
        if self._process != os.getpid():  # a forked process must not use the threads and files of its parent
            self.__setstate__({})
        with self._lock:
            if shard not in self._readers:
                options = "readahead_buffer_size:0,max_parallelism:0"
                reader = array_record_module.ArrayRecordReader(self.paths[shard], options, file_reader_buffer_size=32768)
                if not reader.ok():
                    raise DataError(f"{self.spec}: {self.paths[shard]} can no longer be read")
                self._readers[shard] = reader
            return self._readers[shard]

    def __getstate__(self):
        own = ("_readers", "_lock", "_process")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state):
        self.__dict__.update(state, _readers={}, _lock=threading.Lock(), _process=os.getpid())


class Fields:
    """How the fields of a record become a sample: which is the image, which the caption, and how to read the others."""

    def __init__(self, image: str, caption: str, readers: dict[str, Callable[[list], Any]]):
        self.image, self.caption, self.readers = image, caption, readers

    def sample(self, name: str, values: dict[str, list]) -> Sample:
        """The sample in a record. Raises: SampleError if its image or caption is missing, empty or damaged."""
        try:
            key = values["key"][0].decode() if values.get("key") and "key" in self.readers else name
            metadata = {
                field: read(values[field])
                for field, read in self.readers.items()
                if field not in ("key", "caption", "captions", self.caption) and field in values
            }
            captions = [text.decode() for text in values.get(self.caption, ())]
        except (ValueError, AttributeError, IndexError) as error:
            raise SampleError(Reason.DAMAGED_TEXT, name, f"a field cannot be read: {error}") from error
        image = values.get(self.image) or [b""]
        if not image[0]:
            raise SampleError(Reason.MISSING_IMAGE, key, "has no image")
        return Sample(key, image[0], check_captions(captions, key), metadata)


def read_fields(directory: pathlib.Path, spec: str) -> Fields:
    """The fields of a folder, from its features.json and, where `prepare` wrote it, manifest.json.

    Raises: DataError if there is no image or no caption among them.
    """
    features = _read_json(directory / "features.json", spec).get("featuresDict", {}).get("features", {})
    manifest = _read_json(directory / "manifest.json", spec) if (directory / "manifest.json").exists() else {}
    kinds = manifest.get("fields", {})
    images = [name for name, feature in features.items() if feature["pythonClassName"].endswith(".Image")]
    captions = [name for name in CAPTION_FIELDS if name in features]
    for what, found in (("image", images), ("caption", captions)):
        if not found:
            raise DataError(f"{spec}: no {what} field in features.json (fields: {', '.join(features) or 'none'})")
    readers = {name: _field_reader(directory, name, feature, kinds.get(name)) for name, feature in features.items()}
    image = "image" if "image" in images else images[0]
    return Fields(image, captions[0], {name: read for name, read in readers.items() if read and name not in images})


class _Scalar:
    """Reads one text or number; with `names`, a class label by its name; with `as_json`, JSON kept in a text."""

    def __init__(self, names: list[str] | None = None, as_json: bool = False):
        self.names, self.as_json = names, as_json

    def __call__(self, values: list) -> Any:
        value = values[0].decode() if isinstance(values[0], bytes) else values[0]
        if self.as_json:
            return json.loads(value) if value else None
        return self.names[value] if self.names and 0 <= value < len(self.names) else value


def _read_list(values: list) -> list:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def _field_reader(directory: pathlib.Path, name: str, feature: dict, kind: str | None) -> Callable | None:
    """A reader of flat fields; None for the others (nested features, tensors), which no sample carries."""
    python_class = feature["pythonClassName"].rsplit(".", 1)[-1]
    if python_class == "ClassLabel":
        labels = directory / f"{name}.labels.txt"
        return _Scalar(names=labels.read_text(encoding="utf-8").split("\n") if labels.exists() else None)
    if python_class in ("Text", "Scalar") or (python_class == "Tensor" and not feature["tensor"].get("shape")):
        return _Scalar(as_json=kind == "json")
    inner = feature.get("sequence", {}).get("feature", {}).get("pythonClassName", "").rsplit(".", 1)[-1]
    return _read_list if inner in ("Text", "Scalar", "ClassLabel", "Tensor") else None


def open_arrayrecord(rest: str) -> ArrayRecordSource:
    """The split DIR/SPLIT. Raises: DataError; see `ArrayRecordSource`."""
    directory, _, split = rest.rstrip("/").rpartition("/")
    if not directory:
        raise DataError(f"arrayrecord:{rest}: write DIR/SPLIT, such as arrayrecord:{rest}/train")
    return ArrayRecordSource(os.path.expanduser(directory), split, spec=f"arrayrecord:{rest}")
