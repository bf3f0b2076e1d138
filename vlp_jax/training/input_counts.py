"""What the training input went through: bad samples by reason, captions cut to length, examples of each source."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlp_jax.data.pipeline import REASONS
from vlp_jax.errors import DataError

GRACE = 1000  # examples before a fraction means much


class InputCounts:
    """Counts over the consumed batches of a run; they live in its checkpoints.

    Args: parts: names of the mixture's parts; a single source has none and is not counted by name.
    """

    def __init__(self, max_bad_fraction: float, parts: Sequence[str] = (), stored: dict[str, Any] | None = None):
        stored = {"examples": 0, "truncated": 0, "bad": {}, "last_bad": "", "parts": {}} | (stored or {})
        self.max_bad_fraction, self.names = max_bad_fraction, tuple(parts)
        self.examples, self.truncated, self.bad = stored["examples"], stored["truncated"], Counter(stored["bad"])
        self.last_bad, self.parts = stored["last_bad"], Counter(stored["parts"])
        self.summarised = self.summary()

    def observe(self, batch: dict[str, np.ndarray]) -> list[str]:
        """Counts a consumed batch; returns what to tell the user: the first bad sample of each kind, the first caption cut.

        Raises: DataError once bad samples are more than `max_bad_fraction` of the examples (of GRACE at least).
        """
        self.examples += len(batch["reason"])
        if len(self.names) > 1:
            counts = np.bincount(batch["part"], minlength=len(self.names))
            self.parts.update(dict(zip(self.names, counts.tolist(), strict=True)))
        messages = self._truncated(batch)
        for row in np.flatnonzero(batch["reason"]):
            name = REASONS[batch["reason"][row] - 1].value
            self.bad[name] += 1
            if self.bad[name] == 1:
                messages.append(f"bad sample replaced: {batch['bad_sample'][row]} ({name}); further ones are counted")
            self.last_bad = str(batch["bad_sample"][row])
        self.check(GRACE)
        return messages

    def _truncated(self, batch: dict[str, np.ndarray]) -> list[str]:
        rows = np.flatnonzero(batch["truncated"])
        first = self.truncated == 0 and len(rows) > 0
        self.truncated += len(rows)
        if not first:
            return []
        return [f"caption cut to the {batch['text'].shape[1]} tokens of model.text.length: {batch['key'][rows[0]]}; further ones "
                "are counted"]

    def check(self, grace: int = 0) -> None:
        """Raises: DataError if bad samples are more than `max_bad_fraction` of the examples, or of `grace` if that is more."""
        bad = self.bad.total()
        if bad > self.max_bad_fraction * max(self.examples, grace):
            raise DataError(f"{bad} of {self.examples} examples were bad ({self.reasons()}), more than "
                            f"data.max_bad_fraction={self.max_bad_fraction}; the last is {self.last_bad}")

    def reasons(self) -> str:
        """`damaged_image 3, empty_caption 1`."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.bad.items())) or "none"

    def summary(self) -> str:
        """The totals in one line, or "" where there is nothing to report."""
        said = [f"{self.bad.total()} bad samples replaced ({self.reasons()})"] if self.bad else []
        said += [f"{self.truncated} captions cut"] if self.truncated else []
        return f"of {self.examples} examples so far: {', '.join(said)}" if said else ""

    def news(self) -> list[str]:
        """The summary, if it has changed since it was last asked for."""
        before, self.summarised = self.summarised, self.summary()
        return [self.summarised] if self.summarised != before else []

    def row(self) -> dict[str, int]:
        """Totals for metrics.jsonl."""
        return {"train/truncated_captions": self.truncated, "train/bad_examples": self.bad.total(),
                **{f"train/bad_examples/{name}": count for name, count in sorted(self.bad.items())},
                **{f"train/examples/{name}": self.parts[name] for name in self.names if len(self.names) > 1}}

    def to_json(self) -> dict[str, Any]:
        return {"examples": self.examples, "truncated": self.truncated, "bad": dict(self.bad), "last_bad": self.last_bad,
                "parts": dict(self.parts)}
