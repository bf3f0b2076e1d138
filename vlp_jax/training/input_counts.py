"""What the training input went through: bad samples by reason, and captions cut to length."""

from collections import Counter
from typing import Any

import numpy as np

from vlp_jax.data.pipeline import REASONS
from vlp_jax.errors import DataError

GRACE = 1000  # examples before a fraction means much


class InputCounts:
    """Counts over the consumed batches of a run; they live in its checkpoints."""

    def __init__(self, max_bad_fraction: float, stored: dict[str, Any] | None = None):
        stored = stored or {"examples": 0, "truncated": 0, "bad": {}, "last_bad": ""}
        self.max_bad_fraction = max_bad_fraction
        self.examples, self.truncated, self.bad = stored["examples"], stored["truncated"], Counter(stored["bad"])
        self.last_bad = stored["last_bad"]

    def observe(self, batch: dict[str, np.ndarray]) -> list[str]:
        """Counts a consumed batch; returns what to tell the user: the first bad sample of each kind.

        Raises: DataError once bad samples are more than `max_bad_fraction` of the examples (of GRACE at least).
        """
        self.examples += len(batch["reason"])
        self.truncated += int(batch["truncated"].sum())
        messages = []
        for row in np.flatnonzero(batch["reason"]):
            name = REASONS[batch["reason"][row] - 1].value
            self.bad[name] += 1
            if self.bad[name] == 1:
                messages.append(f"bad sample replaced: {batch['bad_sample'][row]} ({name}); further ones are only counted")
            self.last_bad = str(batch["bad_sample"][row])
        self.check(GRACE)
        return messages

    def check(self, grace: int = 0) -> None:
        """Raises: DataError if bad samples are more than `max_bad_fraction` of the examples, or of `grace` if that is more."""
        bad = self.bad.total()
        if bad > self.max_bad_fraction * max(self.examples, grace):
            raise DataError(f"{bad} of {self.examples} examples were bad ({self.summary()}), more than "
                            f"data.max_bad_fraction={self.max_bad_fraction}; the last is {self.last_bad}")

    def summary(self) -> str:
        """`damaged_image 3, empty_caption 1`."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.bad.items())) or "none"

    def row(self) -> dict[str, int]:
        """Totals for metrics.jsonl."""
        return {"train/truncated_captions": self.truncated, "train/bad_examples": self.bad.total(),
                **{f"train/bad_examples/{name}": count for name, count in sorted(self.bad.items())}}

    def to_json(self) -> dict[str, Any]:
        return {"examples": self.examples, "truncated": self.truncated, "bad": dict(self.bad), "last_bad": self.last_bad}
