"""The devices that take part in a collective, read from the text of a compiled program.

The text has three notations for them.
"""

import math
import re

import numpy as np

Groups = list[list[int]]

LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})?\}")  # {{0,1},{2,3}}, or {} for all
# [groups,size]<=[shape]T(order)
STRIDED = re.compile(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)")
ALONG_AXES = re.compile(
    r"replica_groups=mesh\[(.*?)\](?:, "
    r"device_ids=\((.*?\]?(?:T\([\d,]+\))?)\))? \{(.*?)\}"
)
PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")


def groups_of(line: str, devices: int) -> Groups:
    """The groups of a collective, as device indices from 0 to `devices` - 1.

    Unknown notations count as one group of all devices.
    """
    if (found := ALONG_AXES.search(line)) is not None:
        return groups_along_axes(found[1], found[2], found[3])
    if (found := STRIDED.search(line)) is not None:
        shape = numbers(found[1].partition("<=")[0])
        return strided(found[1].partition("<=")[2]).reshape(shape).tolist()
    if (found := LISTED.search(line)) is not None and found[1]:
        return [numbers(group) for group in found[1].split("},{")]
    return [list(range(devices))]


def groups_along_axes(axes: str, device_ids: str | None, along: str) -> Groups:
    """`'a'=4,'b'=2`, `[2,4]T(1,0)`, `'a'`: groups of four along axis `a` of a 4 x 2 mesh of these
    devices."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
    count = math.prod(sizes.values())
    if device_ids is None:
        ids = np.arange(count)
    else:
        ids = strided(device_ids) if device_ids.startswith("[") else np.array(numbers(device_ids))
    named = re.findall(r"'(\w+)'", along)
    order = [
        list(sizes).index(name) for name in [*(name for name in sizes if name not in named), *named]
    ]
    size = math.prod(sizes[name] for name in named)
    return ids.reshape(tuple(sizes.values())).transpose(order).reshape(-1, size).tolist()


def strided(text: str) -> np.ndarray:
    """`[2,4]T(1,0)` -> the numbers from 0 in that shape, with transposed axes, flattened."""
    shape, _, order = text.partition("T")
    shape = numbers(shape)
    ids = np.arange(math.prod(shape)).reshape(shape)
    return (ids.transpose(numbers(order)) if order else ids).reshape(-1)


def pairs_of(line: str) -> list[tuple[int, int]]:
    """(sender, receiver) pairs of a collective-permute."""
    found = PAIRS.search(line)
    return (
        [(sender, receiver) for sender, receiver in map(numbers, found[1].split("},{"))]
        if found
        else []
    )


def numbers(text: str) -> list[int]:
    """All integers in a text, in order."""
    return [int(number) for number in re.findall(r"\d+", text)]
