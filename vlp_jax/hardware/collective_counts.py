"""Traffic between the devices of a compiled program, read from its text."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence

from vlp_jax.hardware.replica_groups import groups_of, numbers, pairs_of

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
    "u64": 8,
}

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
BETWEEN_SLICES = re.compile(
    r"= (.*?) "
    r"send\(.*_xla_megascale_target=\"\{([\d,]+)\}.*_xla_megascale_transfer_type=\"(\w+)\""
)
ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
WHILE = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CALLED = re.compile(
    r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
BRANCHES = re.compile(r"branch_computations=\{(.*?)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: one of KINDS, or another one that a TPU's compiler uses between slices.
      bytes: size of its array on one device: what is summed, the result of a gather, the input of a
        scatter, what is sent on by a permutation.
      sent_bytes: the least that a device sends to others connected by the fast interconnect.
      network_bytes: the least that it sends to others connected only by the network between hosts
        or slices.
    """

    kind: str
    bytes: int
    sent_bytes: float
    network_bytes: float


def collective_counts(
    program: str, islands: Sequence[int] | None = None
) -> dict[str, dict[str, int]]:
    """Counts and traffic of the collectives of a compiled program.

    Loops count as often as they iterate, and every branch of a conditional counts as taken.

    Args:
      program: text of the program (`compiled.as_text()`).
      islands: for each device in the order of the mesh, the index of its group of devices connected
        by the fast interconnect (TPU slice, GPU host). Default: all are in one group.
    Returns: {kind: {"count", "bytes", "sent_bytes", "network_bytes"}} for one call, summed over the
      collectives.
    """
    computations = split_computations(program)
    header = re.search(r"num_partitions=(\d+)", program)
    islands = islands or [0] * (int(header[1]) if header else 1)
    totals: dict[str, Counter] = {}
    for name, times in calls(computations).items():
        for line in computations[name]:
            if (found := read_collective(line, name, islands)) is not None:
                totals.setdefault(found.kind, Counter()).update(
                    {"count": times}
                    | {
                        key: times * getattr(found, key)
                        for key in ("bytes", "sent_bytes", "network_bytes")
                    }
                )
    return {
        kind: {
            key: round(totals[kind][key])
            for key in ("count", "bytes", "sent_bytes", "network_bytes")
        }
        for kind in sorted(totals)
    }


def read_collective(line: str, computation: str, islands: Sequence[int]) -> Collective | None:
    """The collective in a line of a program, or None."""
    if (between := BETWEEN_SLICES.search(line)) is not None:
        kind = between[3].lower().replace("_", "-")
        size, slices = result_bytes(between[1], kind, started=True), len(numbers(between[2]))
        return Collective(
            kind, size, 0, size * (slices - 1) / slices * (2 if kind == "all-reduce" else 1)
        )
    if (found := COLLECTIVE.search(line)) is None:
        return None
    kind, size = found[2], result_bytes(found[1], found[2], bool(found[3]))
    if kind == "collective-permute":
        far = any(islands[sender] != islands[receiver] for sender, receiver in pairs_of(line))
        return Collective(kind, size, 0 if far else size, size if far else 0)
    group = max(groups_of(line, len(islands)), key=len)
    if kind == "reduce-scatter":
        size *= len(group)  # the text has the size of one device's part
    elif kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # the TPU compiler's form of a reduce-scatter
    return Collective(kind, size, *traffic(kind, size, group, islands))


def traffic(
    kind: str, size: int, group: Sequence[int], islands: Sequence[int]
) -> tuple[float, float]:
    """The least bytes that a device sends, within its island and beyond it, for one collective.

    The collective is of `kind`, between the devices of `group`, over `size` bytes.

    First the members within an island communicate, then each with its counterparts in the other
    islands. Every byte must be received from or sent to all others once; a sum does both (Patarasuk
    & Yuan 2009, "Bandwidth optimal all-reduce", section 2).
    """
    beyond = len({islands[device] for device in group})
    within = len(group) // beyond
    times = 2 if kind == "all-reduce" else 1
    share = size if kind == "all-to-all" else size / within  # what remains to be sent beyond
    return times * size * (within - 1) / within, times * share * (beyond - 1) / beyond


def split_computations(program: str) -> dict[str, list[str]]:
    """Lines of each named computation; the name of the entry is ""."""
    computations, lines = {}, []
    for line in program.splitlines():
        if (start := COMPUTATION.match(line)) is not None:
            lines = computations.setdefault("" if line.startswith("ENTRY") else start[1], [])
        else:
            lines.append(line)
    return computations


def calls(computations: dict[str, list[str]]) -> Counter:
    """How often each computation runs when the entry runs once."""
    times: Counter = Counter()

    def visit(name: str, factor: int) -> None:
        times[name] += factor
        for line in computations.get(name, ()):
            trips = loop_trips(line, computations) if WHILE.search(line) else 1
            branches = re.findall(r"[\w.\-]+", found[1]) if (found := BRANCHES.search(line)) else []
            for called in CALLED.findall(line) + branches:
                if called in computations:
                    visit(called, factor * trips)

    visit("", 1)
    return times


def loop_trips(line: str, computations: dict[str, list[str]]) -> int:
    """The number of iterations of a while loop.

    It is noted by the compiler, or else is the one constant that the loop's condition compares
    with.
    """
    if (known := TRIPS.search(line)) is not None:
        return int(known[1])
    found = WHILE.search(line)
    condition = found[1] if found else ""
    bounds = re.findall(
        r"s32\[\][^=]* "
        r"constant\((\d+)\)",
        "\n".join(computations.get(condition, ())),
    )
    return max((int(bound) for bound in bounds), default=1)


def result_bytes(shape: str, kind: str, started: bool) -> int:
    """Bytes of a collective's result on one device.

    The start of an asynchronous one lists its operands before its results.
    """
    arrays = [
        BYTES.get(dtype, 4) * math.prod(int(size) for size in sizes.split(",") if size)
        for dtype, sizes in ARRAY.findall(shape)
        if sizes or not started
    ]
    if started and kind != "all-reduce" and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2 :]
    return sum(arrays)
