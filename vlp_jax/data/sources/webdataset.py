"""`webdataset:PATTERN`: tar files, in which members that share a name up to its first dot are one
sample.

See `tar_samples.py` for the grouping. The image of a sample is its .png, .jpg, .webp, ... (see
`image_endings.py`). Its captions are `caption` and `captions` in its .json, or, where there is
neither, its .txt. Option `caption` names other fields of the .json, where a dot reaches into nested
ones, `txt` for the .txt, and `cls` for the .cls: `?caption=txt|recaption|alt.text`. Option `image`
chooses an ending where a sample has several images: `?image=mask.png`. Option `prompt` puts
captions into prompts. The other fields are metadata.

A .cls is the class, as its number or its name, and becomes the metadata `cls`. Where a
`classnames.txt` is next to the tars (see `class_files.py`), the name of the class becomes the
metadata `class`, and the caption of a sample that has no other caption.
"""

import functools
import json
import os
import re
import shlex
from collections import Counter
from typing import Any, ClassVar
from urllib.parse import quote_plus

import numpy as np

from vlp_jax.data.notifications import listed, notice
from vlp_jax.data.samples import (
    Reason,
    Sample,
    SampleError,
    check_captions,
    check_index,
    fingerprint_of,
)
from vlp_jax.data.sources.class_files import class_files
from vlp_jax.data.sources.columns import Columns, locate
from vlp_jax.data.sources.file_patterns import find_files, without_query
from vlp_jax.data.sources.index import load_indexes
from vlp_jax.data.sources.member_checks import read_members
from vlp_jax.data.sources.shard_counts import check_counts
from vlp_jax.data.sources.spec import Options, split_options
from vlp_jax.data.sources.tar_headers import BLOCK
from vlp_jax.data.sources.tar_index import TarIndex, index_tar
from vlp_jax.data.sources.tar_samples import CLASS_ENDING, IMAGE
from vlp_jax.errors import DataError

OPTIONS = ("image", "caption", "prompt")
TEXT, CLS, NAME = "txt", "cls", "class"
NUMBER = re.compile(r"[0-9]{1,9}(\.0*)?")
NO_CLASS = re.compile(r"-[0-9]{1,9}(\.0*)?")  # in a test split with hidden classes
NO_MEMBER = [0, 0]
GAP = 1 << 16  # bytes between members of a sample up to which they are read together


class WebDatasetSource:
    """The samples of some tar files, in the order of `paths`.

    A tar without an end mark is read as far as possible, with a warning; its last sample may be a
    `SampleError`.

    Args:
      paths: tar files.
      spec: name of the source in messages.
      options: see the module.

    Raises:
      DataError: if a tar is damaged or holds fewer samples than a file next to it names (see
        `check_counts`), or if the tars have no sample.
    """

    label_ending: ClassVar[str] = CLASS_ENDING  # of the member that holds the class

    def __init__(self, paths: list[str], spec: str, options: Options):
        self.spec, self.paths, self.options = spec, list(paths), options
        images = tuple(options.get("image", ()))
        self.columns = Columns.of(
            {name: values for name, values in options.items() if name != "image"}, spec, image=""
        )
        ending = self.label_ending
        begin = "webdataset" if ending == CLASS_ENDING else f"webdataset-{ending}"
        kind = "-".join([f"{begin}-samples", *map(quote_plus, images)])
        build = functools.partial(index_tar, images=images, label=ending)
        self.indexes = [TarIndex(arrays) for arrays in load_indexes(self.paths, kind, build, spec)]
        self.starts = np.cumsum([0, *map(len, self.indexes)])
        self.left_out = dict(
            sum((Counter(tar.notes["left_out"]) for tar in self.indexes), Counter()).most_common()
        )
        check_counts(self.paths, list(map(len, self.indexes)), spec)
        if len(self) == 0:
            raise DataError(
                f"{spec}: no sample in {len(self.paths)} tar file(s); members must be "
                "named KEY.jpg, "
                f"KEY.txt{', and there are ' + listed(self.left_out) if self.left_out else ''}"
            )
        names, self.templates = (
            class_files(self.paths)
            if any(tar.notes["classes"] for tar in self.indexes)
            else ([], [])
        )
        self.class_names = {CLS: names, NAME: names} if names else {}
        self._say_what_is_missing()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        return self._sample(index, read_image=True)

    def without_image(self, index: int) -> Sample:
        """Implements `SparesImages`: only the members other than the image are read."""
        return self._sample(index, read_image=False)

    def _sample(self, index: int, read_image: bool) -> Sample:
        shard, row = locate(self.starts, check_index(index, len(self)))
        tar = self.indexes[shard]
        key = tar.key(row)
        try:
            members = tar.members[row].tolist()
            wanted = members if read_image else [NO_MEMBER, *members[1:]]
            image, fields, text, label = self._read(shard, key, wanted, tar.checks[row].tolist())
            if members[IMAGE] == NO_MEMBER:
                raise SampleError(Reason.MISSING_IMAGE, key, "has no image")
            label = self._class(key, label)
            captions, metadata = self._captions_and_metadata(
                key, parse_json(key, fields), parse_text(key, text), label
            )
        except SampleError as error:
            missing = error.reason in (Reason.MISSING_IMAGE, Reason.MISSING_CAPTION)
            if missing and tar.cut is not None and row == len(tar) - 1:
                raise SampleError(
                    Reason.CUT_OFF,
                    key,
                    f"{error.message}; {self.paths[shard]} is cut off behind it",
                ) from error
            raise
        return Sample(key, image or b"", tuple(captions), metadata, tuple(captions.values()))

    def fingerprint(self) -> str:
        """Hash of the names and sample counts of the tars, their keys, sizes and truncation, and
        the options."""
        shards = [
            [os.path.basename(path), len(tar), tar.digest, tar.cut]
            for path, tar in zip(self.paths, self.indexes, strict=True)
        ]
        return fingerprint_of("webdataset", shards, self.options)

    def _captions_and_metadata(
        self, key: str, fields: dict[str, Any], text: str | None, label: dict[str, Any]
    ) -> tuple[dict[str, str], dict]:
        if "caption" not in self.options:
            values, metadata = usual_captions(fields, text)
            metadata |= label
            if label and all(value is None for _, value in values):
                held = metadata.get(NAME) or label[CLS]
                names = held if isinstance(held, list) else [held]
                return self.columns.prompted(
                    {name: NAME for name in names if isinstance(name, str)}
                ), metadata
            return self.columns.prompted(check_captions(values, key)), metadata
        used = self.columns.used()
        row = (
            fields
            | {name: str(value) for name, value in label.items()}
            | ({} if text is None else {TEXT: text})
        )
        return self.columns.captions_of(key, row), {
            name: value for name, value in fields.items() if name not in used
        } | label

    def _class(self, key: str, data: bytes | None) -> dict[str, Any]:
        """The metadata from the content of a .cls."""
        text = (parse_text(key, data, CLS) or "").strip()
        if not text or NO_CLASS.fullmatch(text):
            return {}
        number = int(text.partition(".")[0]) if NUMBER.fullmatch(text) else None
        names = self.class_names.get(NAME, ())
        if number is None or not names:
            return {CLS: text if number is None else number}
        if number >= len(names):
            raise SampleError(
                Reason.WRONG_TYPE,
                key,
                f"its class is {number}, and classnames.txt names {len(names)}, from 0 on",
            )
        return {CLS: number, NAME: names[number]}

    def _read(
        self, shard: int, key: str, members: list[list[int]], checks: list[int]
    ) -> list[bytes | None]:
        """The contents of members (first block + 1, size), in one read if little is between them;
        None for block 0."""
        path, cut, sparse = self.paths[shard], self.indexes[shard].cut, self.indexes[shard].sparse
        there = [
            ((block - 1) * BLOCK, size, check)
            for (block, size), check in zip(members, checks, strict=True)
            if block
        ]
        if not there:
            return [None] * len(members)
        last = max(start + size for start, size, _ in there)
        if cut is not None and last > cut:
            raise SampleError(
                Reason.CUT_OFF, key, f"{path} is cut off in the middle of it, at byte {cut}"
            )
        data = read_members(path, key, there, GAP, self.indexes[shard].file)
        for start in data.keys() & sparse.keys():
            data[start] = sparse[start].expand(data[start])
        return [data[(block - 1) * BLOCK] if block else None for block, _ in members]

    def _say_what_is_missing(self) -> None:
        if self.left_out:
            count = sum(self.left_out.values())
            notice(
                f"data note: {self.spec}: {count:,} members are part of no sample: "
                f"{listed(self.left_out)}; samples are an image with .json, .txt or .cls of its "
                "name (?image=ENDING chooses another image)"
            )
        apart = [
            (path, tar.notes["apart"])
            for path, tar in zip(self.paths, self.indexes, strict=True)
            if tar.notes["apart"]
        ]
        if apart:
            path, more = (
                apart[0][0],
                f" (and in {len(apart) - 1} more tars)" if len(apart) > 1 else "",
            )
            command = sorting_command(path)
            notice(
                f"data note: {path}: {apart[0][1]:,} samples have members that are not next to "
                f"each other{more}, so each takes several reads; sort them: {command}"
            )
        cut = [
            (path, tar.cut)
            for path, tar in zip(self.paths, self.indexes, strict=True)
            if tar.cut is not None
        ]
        if cut:
            (path, size), more = cut[0], f" (and {len(cut) - 1} more tars)" if len(cut) > 1 else ""
            notice(
                f"data warning: {path} is cut off at byte {size}{more}; whatever came behind is "
                "lost, and its last sample is replaced if it is not whole"
            )
        empty = [path for path, tar in zip(self.paths, self.indexes, strict=True) if not len(tar)]
        if empty:
            more = f" (nor do {len(empty) - 1} more tars)" if len(empty) > 1 else ""
            notice(
                f"data warning: {empty[0]} holds no sample{more}; members must be named "
                "KEY.jpg, KEY.txt"
            )


def sorting_command(path: str) -> str:
    """A shell command that writes a tar again with its members in the order of their names."""
    name = os.path.basename(without_query(path)).removesuffix(".tar")
    folder, sorted_tar, tar = (
        shlex.quote(name),
        shlex.quote(f"{name}-sorted.tar"),
        shlex.quote(path),
    )
    return (
        f"mkdir {folder} && tar -xf {tar} -C {folder} && (cd {folder} && tar --sort=name -cf - "
        f"*) > {sorted_tar}"
    )


def parse_json(key: str, data: bytes | None) -> dict[str, Any]:
    """The object in a .json; an empty one if there is none.

    Raises:
      SampleError: with DAMAGED_TEXT or WRONG_TYPE.
    """
    try:
        fields = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError) as error:
        raise SampleError(Reason.DAMAGED_TEXT, key, f"its .json cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise SampleError(
            Reason.WRONG_TYPE, key, f"its .json is {type(fields).__name__}, not an object"
        )
    return fields


def parse_text(key: str, data: bytes | None, ending: str = TEXT) -> str | None:
    """The text of a .txt, or of a member with another ending; None if there is none.

    Raises:
      SampleError: with DAMAGED_TEXT.
    """
    try:
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleError(
            Reason.DAMAGED_TEXT, key, f"its .{ending} is not UTF-8: {error}"
        ) from error


def usual_captions(
    fields: dict[str, Any], text: str | None
) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """The default captions of a sample, with their fields, and the metadata.

    `caption` comes before `captions`. The .txt is used only without them. A `captions` that maps
    languages is metadata.
    """
    named = ["caption", *([] if isinstance(fields.get("captions"), dict) else ["captions"])]
    values = [(name, fields[name]) for name in named if fields.get(name) is not None]
    metadata = {name: value for name, value in fields.items() if name not in named}
    return values or [("caption", None), (TEXT, text)], metadata


def open_webdataset(rest: str) -> WebDatasetSource:
    """The tar files of PATTERN?OPTIONS.

    Raises:
      DataError: for a wrong option; see `find_files` and `WebDatasetSource`.
    """
    pattern, options = split_options(rest, "webdataset", OPTIONS)
    return WebDatasetSource(
        find_files(pattern, "webdataset", remote=True), f"webdataset:{rest}", options
    )
