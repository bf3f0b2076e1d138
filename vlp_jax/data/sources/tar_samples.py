"""Grouping of tar members into samples, by their names.

As in the webdataset library, adjacent members that share a name up to its first dot are one sample,
and the rest of the name is the kind of the member: `a.jpg`, `a.txt`; `a.mask.png` is another member
of `a`. Where names have more dots (`photo.v1.jpg`, `photo.v1.txt`), an image and a text that share
a name up to its last dot are a sample, too, unless the shorter name is one that has the image.
Members of a sample that are not adjacent are brought together. Everything left out is counted by
kind.
"""

import array
import dataclasses
import hashlib
from collections import Counter

import numpy as np

from vlp_jax.data.sources.image_endings import IMAGE_ENDINGS
from vlp_jax.data.sources.index import Arrays
from vlp_jax.errors import DataError

IMAGE, JSON, TEXT, CLASS = range(4)
WORDS = {"json": JSON, "txt": TEXT}
CLASS_ENDING = "cls"
WIDTH = 8  # numbers per sample: first block + 1 and size of each member


@dataclasses.dataclass(frozen=True)
class Dotted:
    """A member with more than one dot in its name.

    Attributes:
      stem: its name without the ending.
      ending: its ending.
      role: IMAGE, JSON, TEXT or CLASS.
      block: first block of its data.
      size: size in bytes.
      part: number of the tar in the file.
      place: number of members before it.
    """

    stem: str
    ending: str
    role: int
    block: int
    size: int
    part: int
    place: int


class TarSamples:
    """Samples of a tar: `add` takes its members in order, `finish` completes the samples.

    Args:
      path: the tar.
      images: endings of the images, such as `jpg` or `mask.png`, in place of all image endings.

    Attributes:
      left_out: number of members that are part of no sample, by kind.
      apart: number of samples whose members are not adjacent.
    """

    def __init__(self, path: str, images: tuple[str, ...] = (), label: str = CLASS_ENDING):
        self.path, self.chosen = path, tuple(ending.lower().removeprefix(".") for ending in images)
        self.roles = dict.fromkeys(self.chosen or IMAGE_ENDINGS, IMAGE) | WORDS | {label: CLASS}
        self.long_endings = [ending for ending in self.chosen if "." in ending]
        self.last, self.place, self.apart = ("", -1), 0, 0
        self.keys, self.ends, self.members = bytearray(), array.array("I"), array.array("I")
        self.parts, self.places = array.array("I"), array.array("Q")
        self.dotted: list[Dotted] = []
        self.left_out: Counter[str] = Counter()

    def add(self, name: str, block: int, size: int, part: int = 0) -> None:
        """Adds a member.

        Args:
          name: its path in the tar.
          block: first block of its data.
          size: size in bytes.
          part: number of the tar in the file.

        Raises:
          DataError: if its path leaves the folder of the tar, or if the sample already has a member
            of this kind.
        """
        if name.startswith("/") or ".." in name and ".." in name.split("/"):
            raise DataError(
                f"{self.path}: member {name!r} leaves the folder of the tar; refusing to read it"
            )
        self.place += 1
        slash = name.rfind("/") + 1
        dot = name.find(".", slash)
        role = self.roles.get(name[dot + 1 :].lower()) if dot > slash else None
        if role is None:
            self._other(name, dot, slash, block, size, part)
            return
        key = name[:dot]
        if (key, part) != self.last:
            self._begin(key, part, self.place)
        self._set(len(self.ends) - 1, role, block, size, name, key)

    def _begin(self, key: str, part: int, place: int) -> None:
        self.last = (key, part)
        self.keys += key.encode()
        self.ends.append(len(self.keys))
        self.members.extend([0] * WIDTH)
        self.parts.append(part)
        self.places.append(place)

    def _set(self, row: int, role: int, block: int, size: int, name: str, key: str) -> None:
        place = WIDTH * row + 2 * role
        if self.members[place]:
            choose = (
                "; ?image=ENDING chooses the image, as ?image=jpg does" if role == IMAGE else ""
            )
            raise DataError(
                f"{self.path}: {name}: sample {key!r} has two members of this kind; "
                f"give each its own name up to the first dot{choose}"
            )
        if size >= 2**32:
            raise DataError(f"{self.path}: {name} is larger than 4 GiB")
        self.members[place], self.members[place + 1] = block + 1, size

    def _other(self, name: str, dot: int, slash: int, block: int, size: int, part: int) -> None:
        """Adds a member that no ending after the first dot makes part of a sample."""
        if dot <= slash:
            self.left_out["hidden files" if dot == slash else "files without an ending"] += 1
            return
        long = (ending for ending in self.long_endings if name.lower().endswith(f".{ending}"))
        ending = next(long, name.rpartition(".")[2].lower())
        stem = name[: -len(ending) - 1]
        role = self.roles.get(ending)
        if role is None or len(stem) <= dot:
            self.left_out[f".{name[dot + 1 :].lower() if len(stem) <= dot else ending}"] += 1
            return
        self.dotted.append(Dotted(stem, ending, role, block, size, part, self.place))

    def finish(self) -> None:
        """Makes samples of the members that `add` could not place yet."""
        if self.dotted:
            self._place_dotted()
        self._bring_together()

    def key(self, row: int) -> str:
        """The key of a sample."""
        return self.keys[self.ends[row - 1] if row else 0 : self.ends[row]].decode()

    def _place_dotted(self) -> None:
        """Makes samples of members with several dots in their names.

        Members without an image or without a text are counted in `left_out` where their shorter
        name is already a sample.
        """
        stems: dict[tuple[str, int], list[Dotted]] = {}
        for member in self.dotted:
            stems.setdefault((member.stem, member.part), []).append(member)
        keys = {(self.key(row), self.parts[row]) for row in range(len(self.ends))}
        complete = {
            stem for stem, members in stems.items() if {IMAGE} < {member.role for member in members}
        }
        count = len(self.ends)
        for (stem, part), members in sorted(
            stems.items(), key=lambda item: (len(item[0][0]), item[1][0].place)
        ):
            if (stem, part) not in complete and any(
                (shorter, part) in keys for shorter in _shorter(stem)
            ):
                first = len(next(shorter for shorter in _shorter(stem) if (shorter, part) in keys))
                for member in members:
                    self.left_out[f"{stem[first:]}.{member.ending}"] += 1
                continue
            keys.add((stem, part))
            self._begin(stem, part, members[0].place)
            for member in members:
                self._set(
                    len(self.ends) - 1,
                    member.role,
                    member.block,
                    member.size,
                    f"{stem}.{member.ending}",
                    stem,
                )
        self.dotted = []
        if len(self.ends) > count:
            self._reorder(np.argsort(np.array(self.places), kind="stable").tolist())

    def _bring_together(self) -> None:
        """Merges the members of one key that are not adjacent, if no kind of member occurs
        twice."""
        members = np.array(self.members, np.uint32).reshape(-1, WIDTH // 2, 2)[..., 0] > 0
        lacking = np.flatnonzero(~(members[:, IMAGE] & members[:, 1:].any(axis=1)))
        if len(lacking) == 0:
            return
        wanted = {(self.key(row), self.parts[row]) for row in lacking.tolist()}
        rows: dict[tuple[str, int], list[int]] = {}
        for row in range(len(self.ends)):
            place = self.key(row), self.parts[row]
            if place in wanted:
                rows.setdefault(place, []).append(row)
        gone = set()
        for first, *others in rows.values():
            if others and (members[[first, *others]].sum(axis=0) <= 1).all():
                self.apart += 1
                gone.update(others)
                for row in others:
                    for place in range(WIDTH):
                        self.members[WIDTH * first + place] |= self.members[WIDTH * row + place]
        if gone:
            self._reorder([row for row in range(len(self.ends)) if row not in gone])

    def _reorder(self, rows: list[int]) -> None:
        """Keeps these samples, in this order."""
        keys = [self.key(row).encode() for row in rows]
        members = np.array(self.members, np.uint32).reshape(-1, WIDTH)[rows]
        self.keys, self.ends = (
            bytearray(b"".join(keys)),
            array.array("I", np.cumsum([len(key) for key in keys]).tolist()),
        )
        self.members = array.array("I", members.ravel().tolist())
        self.parts = array.array("I", [self.parts[row] for row in rows])
        self.places = array.array("Q", [self.places[row] for row in rows])

    def arrays(self) -> Arrays:
        """The arrays of a `TarIndex` that describe the samples."""
        members, ends = (
            np.array(self.members, np.uint32).reshape(-1, WIDTH // 2, 2),
            np.array(self.ends, np.uint32),
        )
        digest = hashlib.sha256()
        classes = [members[:, CLASS, 1]] if members[:, CLASS].any() else []
        for part in (self.keys, ends, members[:, :CLASS, 1], *classes):
            digest.update(np.ascontiguousarray(part).data)
        return {
            "members": members,
            "keys": np.frombuffer(bytes(self.keys), np.uint8),
            "ends": ends,
            "digest": np.frombuffer(digest.digest(), np.uint8),
        }


def _shorter(stem: str) -> list[str]:
    """The prefixes of a name up to each dot after its last slash, the longest first."""
    slash, found = stem.rfind("/") + 1, []
    while (dot := stem.rfind(".", slash)) > slash:
        stem = stem[:dot]
        found.append(stem)
    return found
