"""What a compiled program sends between its devices, read from its text."""

import math
import re
from collections import Counter

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
         "u32": 4, "f64": 8, "s64": 8, "u64": 8}
# How often a byte of the result crosses a chip's links, for many chips: an all-reduce scatters and then gathers.
CROSSINGS = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "collective-permute": 1, "all-to-all": 1}

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
WHILE = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CALLED = re.compile(r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)")


def collective_counts(program: str) -> dict[str, dict[str, int]]:
    """{kind: {"count", "bytes"}} of a compiled program (`compiled.as_text()`): how often each kind runs in one call, loops
    counted as often as they turn, and the bytes of its results on one device."""
    computations = split_computations(program)
    counts: Counter = Counter()
    sizes: Counter = Counter()
    for name, times in calls(computations, program).items():
        for line in computations[name]:
            if (found := COLLECTIVE.search(line)) is not None:
                counts[found[2]] += times
                sizes[found[2]] += times * result_bytes(found[1], found[2], bool(found[3]))
    return {kind: {"count": counts[kind], "bytes": sizes[kind]} for kind in KINDS if counts[kind]}


def split_computations(program: str) -> dict[str, list[str]]:
    """Lines of each named computation; the entry's name is ""."""
    computations, lines = {}, []
    for line in program.splitlines():
        if (start := COMPUTATION.match(line)) is not None:
            lines = computations.setdefault("" if line.startswith("ENTRY") else start[1], [])
        else:
            lines.append(line)
    return computations


def calls(computations: dict[str, list[str]], program: str) -> Counter:
    """How often each computation runs when the entry runs once."""
    times: Counter = Counter()

    def visit(name: str, factor: int) -> None:
        times[name] += factor
        for line in computations.get(name, ()):
            trips = loop_trips(line, computations) if WHILE.search(line) else 1
            for called in CALLED.findall(line):
                if called in computations:
                    visit(called, factor * trips)

    visit("", 1)
    return times


def loop_trips(line: str, computations: dict[str, list[str]]) -> int:
    """How often a while loop turns: as the compiler notes it, else the one constant that its condition compares with."""
    if (known := TRIPS.search(line)) is not None:
        return int(known[1])
    condition = WHILE.search(line)[1]
    bounds = re.findall(r"s32\[\][^=]* constant\((\d+)\)", "\n".join(computations.get(condition, ())))
    return max((int(bound) for bound in bounds), default=1)


def result_bytes(shape: str, kind: str, started: bool) -> int:
    """Bytes of a collective's result on one device; what starts an asynchronous one shows its operands before its results."""
    arrays = [BYTES.get(dtype, 4) * math.prod(int(size) for size in sizes.split(",") if size)
              for dtype, sizes in ARRAY.findall(shape) if sizes or not started]
    if started and kind != "all-reduce" and len(arrays) > 1:
        arrays = arrays[len(arrays) // 2:]
    return sum(arrays)


def crossing_bytes(counts: dict[str, dict[str, int]]) -> int:
    """Bytes that one chip sends in a call."""
    return sum(CROSSINGS[kind] * found["bytes"] for kind, found in counts.items())
