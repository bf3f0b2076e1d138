"""TensorBoard events."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping

from vlp_jax.errors import CheckpointError
from vlp_jax.training.writers.base import MetricWriter, Row, RunFacts, WriterConfig, numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorBoardConfig(WriterConfig):
    """TensorBoard events under DIR/tensorboard."""

    folder: str = "tensorboard"  # inside of the workdir

    def open(self, run: RunFacts) -> "TensorBoard":
        """The writer of event files in the workdir; a resumed run appends."""
        return TensorBoard(os.path.join(run.workdir, self.folder), run.resumed_step)


class TensorBoard(MetricWriter):
    """Scalars and texts as TensorBoard events; rows after a resumed step replace older ones."""

    def __init__(self, folder: str, resumed_step: int):
        self.writer = summary_writer()(
            folder,
            purge_step=resumed_step + 1 if resumed_step else None,
            # the name itself has whole seconds only
            filename_suffix=f".{resumed_step}",
        )

    def write(self, row: Row) -> None:
        """Adds a row.

        Raises:
          CheckpointError: the disk is full or gone.
        """
        try:
            for name, value in numbers(row).items():
                self.writer.add_scalar(name, value, row["step"])
        except OSError as error:
            raise CheckpointError(
                f"{self.writer.logdir}: cannot be written: {error.strerror}"
            ) from error

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Adds texts with their lines as written.

        Raises:
          CheckpointError: the disk is full or gone.
        """
        try:
            for name, text in texts.items():
                self.writer.add_text(
                    name, "".join(f"    {line}\n" for line in text.splitlines()), step
                )
        except OSError as error:
            raise CheckpointError(
                f"{self.writer.logdir}: cannot be written: {error.strerror}"
            ) from error

    def flush(self) -> None:
        """Writes the events to their file."""
        # as in `close`
        with contextlib.suppress(OSError):
            self.writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        # a full disk raises its own error; metrics.jsonl has the numbers too
        with contextlib.suppress(OSError):
            self.writer.close()


def summary_writer() -> type:
    """tensorboardX's SummaryWriter, imported without torch.

    tensorboardX imports torch wherever it is installed, which takes seconds, for a single
    annotation. With None in `sys.modules` the import system reports a module as missing.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter
