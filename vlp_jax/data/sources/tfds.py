"""`tfds:DIR/SPLIT` and `tfds:NAME/SPLIT`: data sets of TensorFlow Datasets in ArrayRecord files,
without TensorFlow.

DIR is the folder with dataset_info.json. NAME, such as `coco_captions/2014` or `my_set:1.0.0`, is
looked up in $TFDS_DATA_DIR or ~/tensorflow_datasets, where `tfds build --file_format=array_record
NAME` has put it; nothing is downloaded. SPLIT may be a slice: `train[:10%]`. Image bytes are
returned as they are stored.

Options: `image`, by default the feature `image` or else the only one; `caption`, by default the
first existing one of `captions`, `caption`, `text`; `prompt`. A class label is read as its name,
and may be the caption. The other features are metadata, except images, audio and video.
"""

import functools
import os
from typing import Any

from vlp_jax.data.samples import Reason, Sample, SampleError, check_index, fingerprint_of
from vlp_jax.data.sources.arrayrecord import check_shards
from vlp_jax.data.sources.columns import OPTIONS, Columns, pick
from vlp_jax.data.sources.filesystem import join, refuse_remote, scheme_of, size_or_none
from vlp_jax.data.sources.local_files import check_regular
from vlp_jax.data.sources.record_fields import CAPTION_FIELDS, FILE
from vlp_jax.data.sources.spec import split_options
from vlp_jax.errors import DataError


class TfdsSource:
    """One split of a TFDS data set.

    The key of a sample is its feature `key`, otherwise SPLIT-NUMBER.

    Args:
      builder: a `tfds.core.DatasetBuilder`.
      split: one of its splits, or a slice of one.
      spec: name of the source in messages.
      options: see the module.

    Raises:
      DataError: for an unknown split, another file format than ArrayRecord, a missing feature, and
        a shard that is missing or has too few records.
    """

    def __init__(self, builder: Any, split: str, spec: str, options: dict[str, tuple[str, ...]]):
        import tensorflow_datasets as tfds

        self.spec, self.split = spec, split
        features = builder.info.features
        media = (tfds.features.Image, tfds.features.Video, tfds.features.Audio)
        self.media = [name for name, feature in features.items() if isinstance(feature, media)]
        decoders = dict.fromkeys(self.media, tfds.decode.SkipDecoding())
        try:
            shards = builder.info.splits[split].file_instructions
            self.data = builder.as_data_source(split, decoders=decoders)
            # TFDS also reads its Parquet files
            if builder.info.file_format.value != "array_record":
                raise NotImplementedError
        except (ValueError, KeyError, NotImplementedError) as error:
            raise DataError(f"{spec}: {_reason(builder, split, error)}") from error
        # written by vlp_jax.prepare
        self.prepared = size_or_none(join(os.fspath(builder.data_dir), "manifest.json")) is not None
        self.columns = self._columns(features, tfds.features.Image, options)
        self.shards = [
            (os.fspath(shard.filename), shard.skip, shard.take, shard.examples_in_shard)
            for shard in shards
        ]
        self.sizes = check_shards(
            [path for path, *_ in self.shards], [length for *_, length in self.shards], spec
        )
        self.labels = {
            name: feature.names
            for name, feature in features.items()
            if isinstance(feature, tfds.features.ClassLabel)
        }
        if len(self) == 0:
            raise DataError(f"{spec}: holds no sample")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        key = f"{self.split}-{index}"
        try:
            values = self.data[index]
        # ValueError and RuntimeError of readers, DecodeError, KeyError, ... of the record parser
        except Exception as error:
            raise SampleError(
                Reason.DAMAGED_RECORD, key, f"damaged record: {' '.join(str(error).split())}"
            ) from error
        image = pick(values, self.columns.image)
        if image is not None and not isinstance(image, bytes):
            raise SampleError(
                Reason.WRONG_TYPE, key, f"its image is {type(image).__name__}, not bytes"
            )
        try:
            row = {
                name: self._plain(name, value)
                for name, value in values.items()
                if name not in self.media
            }
        except UnicodeDecodeError as error:
            raise SampleError(
                Reason.DAMAGED_TEXT, key, f"a field cannot be read: {error}"
            ) from error
        stored = row.pop("key", None) if "key" not in self.columns.used() else None
        file = row.pop(FILE, "") if self.prepared and FILE not in self.columns.used() else ""
        return self.columns.sample(
            stored if isinstance(stored, str) and stored else key, row, image, file
        )

    def fingerprint(self) -> str:
        """Hash of the names, lengths and sizes of the shards, of the part read of each, and of the
        columns."""
        shards = [[os.path.basename(path), *rest] for path, *rest in self.shards]
        return fingerprint_of("tfds", shards, self.sizes, repr(self.columns))

    def _columns(self, features, image_type, options) -> Columns:
        images = [name for name, feature in features.items() if isinstance(feature, image_type)]
        captions = [name for name in CAPTION_FIELDS if name in features] or CAPTION_FIELDS[1:2]
        image = images[0] if len(images) == 1 else "image"
        columns = Columns.of(options, self.spec, captions=tuple(captions[:1]), image=image)
        columns.check(sorted(features), self.spec)
        return columns

    def _plain(self, name: str, value: Any) -> Any:
        """A decoded feature as a value that JSON can hold; a class label as its name."""
        value = _plain(value)
        names = self.labels.get(name)
        return (
            names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value
        )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value  # NumPy arrays and scalars


def _reason(builder: Any, split: str, error: Exception) -> str:
    splits = list(builder.info.splits)
    if not splits:
        return (
            f"is not there; make it with tfds build --file_format=array_record {builder.name}, "
            "or give its folder"
        )
    if isinstance(error, NotImplementedError):
        stored = builder.info.file_format.value
        return (
            f"written as {stored}; only array_record is read: tfds build "
            f"--file_format=array_record {builder.name}"
        )
    return f"no split {split!r}; splits: {', '.join(splits)}"


def _builder(place: str, spec: str) -> Any:
    """The builder of a folder or data set. Raises DataError if there is none."""
    import tensorflow_datasets as tfds

    folder = os.path.expanduser(place)
    for name in ("dataset_info.json", "features.json"):
        check_regular(os.path.join(folder, name))
    if scheme_of(place) or os.path.isabs(folder) or os.path.isdir(folder):
        build = functools.partial(tfds.builder_from_directory, folder)
        expected = "expected a folder with dataset_info.json and features.json"
    else:
        build = functools.partial(tfds.builder, place)
        expected = "no such folder, nor a data set that TFDS knows or has built"
    try:
        return build()
    except Exception as error:  # TFDS raises its own errors and those of the storage
        raise DataError(
            f"{spec}: {expected} ({str(error).strip().partition(chr(10))[0]})"
        ) from error


def open_tfds(rest: str) -> TfdsSource:
    """The split DIR/SPLIT or NAME/SPLIT?OPTIONS.

    Raises:
      DataError: if `rest` is not of this form or on an unsupported storage; see `TfdsSource`.
    """
    spec = f"tfds:{rest}"
    place, options = split_options(rest, "tfds", OPTIONS)
    refuse_remote(place, spec, supported=("gs",))
    place, _, split = place.rstrip("/").rpartition("/")
    if not place:
        raise DataError(f"{spec}: write DIR/SPLIT or NAME/SPLIT, such as tfds:{split}/train")
    return TfdsSource(_builder(place, spec), split, spec, options)
