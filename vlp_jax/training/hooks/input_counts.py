"""Counts over the training input: bad samples, truncated or dropped captions, examples of each
source."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlp_jax.data.pipeline import REASONS
from vlp_jax.data.samples import unpaired
from vlp_jax.distributed.exchange import exchange, several_hosts
from vlp_jax.errors import DataError
from vlp_jax.reporting import report
from vlp_jax.training.hooks.hook import Hook, Update

GRACE = 1000  # least number of examples for which a fraction is meaningful


@dataclasses.dataclass
class Tally:
    """Counts that can be added. last_bad: the last bad sample, in words."""

    examples: int = 0
    truncated: int = 0
    bad: Counter[str] = dataclasses.field(default_factory=Counter)
    last_bad: str = ""
    parts: Counter[str] = dataclasses.field(default_factory=Counter)
    dropped: int = 0

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Tally":
        """The inverse of `to_json`."""
        return cls(**stored | {"bad": Counter(stored["bad"]), "parts": Counter(stored["parts"])})

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "examples": self.examples,
            "truncated": self.truncated,
            "bad": dict(self.bad),
            "last_bad": self.last_bad,
            "parts": dict(self.parts),
            "dropped": self.dropped,
        }

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.examples + other.examples,
            self.truncated + other.truncated,
            self.bad + other.bad,
            other.last_bad or self.last_bad,
            self.parts + other.parts,
            self.dropped + other.dropped,
        )


class InputCounts(Hook):
    """Counts over the consumed batches of a run; they are stored in its checkpoints.

    Each process counts its own rows; `total` is over all processes. With several processes `gather`
    updates it, where rows are written and checkpoints saved. The limit is checked there, so that
    all processes get the same result.

    Args:
      max_bad_fraction: largest allowed fraction of bad samples.
      parts: names of the mixture's parts. A single source has no parts and is not counted by name.
      stored: counts from a checkpoint.
    """

    def __init__(
        self,
        max_bad_fraction: float,
        parts: Sequence[str] = (),
        stored: dict[str, Any] | None = None,
    ):
        self.max_bad_fraction, self.names = max_bad_fraction, tuple(parts)
        # of earlier sessions, over all processes
        self.earlier = Tally.from_json(stored) if stored else Tally()
        self.here = Tally()  # of this process in this session
        self.total = self.earlier
        self.summarised = self.summary()

    def after(self, update: Update) -> None:
        """Counts a consumed batch, and reports the first of each kind.

        Raises:
          DataError: as `observe`.
        """
        for message in self.observe(update.batch):
            report(message)

    def observe(self, batch: dict[str, np.ndarray]) -> list[str]:
        """Counts a consumed batch.

        Returns: lines for the user: the first bad sample of each kind, the first truncated and the
          first dropped caption.
        Raises:
          DataError: bad samples are more than `max_bad_fraction` of the examples (of GRACE at
            least).
        """
        known = self.earlier + self.here
        self.here.examples += len(batch["reason"])
        if len(self.names) > 1:
            counts = np.bincount(batch["part"], minlength=len(self.names))
            self.here.parts.update(dict(zip(self.names, counts.tolist(), strict=True)))
        messages = self._truncated(batch, known.truncated == 0) + self._dropped(
            batch, known.dropped == 0
        )
        for row in np.flatnonzero(batch["reason"]):
            name = REASONS[batch["reason"][row] - 1].value
            if not known.bad[name] and not self.here.bad[name]:
                messages.append(
                    f"bad sample replaced: {batch['bad_sample'][row]} ({name}); "
                    "further ones are "
                    f"counted{unpaired(name, str(batch['bad_sample'][row]))}"
                )
            self.here.bad[name] += 1
            self.here.last_bad = str(batch["bad_sample"][row])
        if not several_hosts():
            self.gather()
        return messages

    def _truncated(self, batch: dict[str, np.ndarray], first: bool) -> list[str]:
        """Counts truncated captions; a line about the first one."""
        rows = np.flatnonzero(batch["truncated"])
        self.here.truncated += len(rows)
        if not first or not len(rows):
            return []
        key = batch["key"][rows[0]]
        length = batch["text"].shape[-1]
        return [
            f"caption cut to the {length} tokens of model.text.length: {key}; further ones "
            "are counted"
        ]

    def _dropped(self, batch: dict[str, np.ndarray], first: bool) -> list[str]:
        """Counts captions without room in packed rows; a line about the first one.

        Unpacked batches have no such key.
        """
        rows = np.flatnonzero(batch["dropped"]) if "dropped" in batch else []
        self.here.dropped += len(rows)
        if not first or not len(rows):
            return []
        key = batch["key"][rows[0]]
        return [
            f"caption left out, the data.text.packing_rows of its window are full: {key}; "
            "further ones are counted"
        ]

    def gather(self) -> None:
        """Adds up the counts of all processes, each of which must call it.

        Raises:
          DataError: too many bad samples; raised on all processes.
        """
        self.total = self.earlier
        for told in exchange("counts of the input", self.here.to_json()):
            self.total = self.total + Tally.from_json(told)
        self.check(GRACE)

    def check(self, grace: int = 0) -> None:
        """Checks the fraction of bad samples.

        Raises:
          DataError: they are more than `max_bad_fraction` of the examples, or of `grace` if that is
            more.
        """
        bad = self.total.bad.total()
        if bad > self.max_bad_fraction * max(self.total.examples, grace):
            advice = unpaired(self.total.bad.most_common(1)[0][0], self.total.last_bad)
            raise DataError(
                f"{bad} of {self.total.examples} examples were bad ({self.reasons()}), more than "
                f"data.max_bad_fraction={self.max_bad_fraction}; the last is "
                f"{self.total.last_bad}{advice}"
            )

    def reasons(self) -> str:
        """`damaged_image 3, empty_caption 1`."""
        return (
            ", ".join(f"{name} {count}" for name, count in sorted(self.total.bad.items())) or "none"
        )

    def summary(self) -> str:
        """The totals in one line, or "" where there is nothing to report."""
        said = (
            [f"{self.total.bad.total()} bad samples replaced ({self.reasons()})"]
            if self.total.bad
            else []
        )
        said += [f"{self.total.truncated} captions cut"] if self.total.truncated else []
        said += [f"{self.total.dropped} captions left out"] if self.total.dropped else []
        return f"of {self.total.examples} examples so far: {', '.join(said)}" if said else ""

    def news(self) -> list[str]:
        """The summary, if it has changed since the last call."""
        before, self.summarised = self.summarised, self.summary()
        return [self.summarised] if self.summarised != before else []

    def row(self, lap: dict[str, float]) -> Mapping[str, float]:
        """Totals for metrics.jsonl."""
        total = self.total
        return {
            "train/truncated_captions": total.truncated,
            "train/bad_examples": total.bad.total(),
            **({"train/dropped_captions": total.dropped} if total.dropped else {}),
            **{f"train/bad_examples/{name}": count for name, count in sorted(total.bad.items())},
            **{
                f"train/examples/{name}": total.parts[name]
                for name in self.names
                if len(self.names) > 1
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Totals for a checkpoint."""
        return self.total.to_json()
