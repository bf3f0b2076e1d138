"""Errors that a user can mend: every door prints one as a single line and exits with status 2."""


class UserError(Exception):
    """Something outside the program is wrong; the message names the thing, the place and the way out."""

    kind = "error"

    def __str__(self) -> str:
        return f"{self.kind}: {super().__str__()}"


class ConfigError(UserError):
    """A flag, a config key or its value is wrong."""

    kind = "config error"


class DataError(UserError):
    """A data source is missing, damaged, or not what its spec says."""

    kind = "data error"


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or of another model."""

    kind = "checkpoint error"


class MeshError(UserError):
    """Devices, mesh axes and batch do not fit together."""

    kind = "mesh error"


class EvaluationError(UserError):
    """A model's output cannot be scored."""

    kind = "evaluation error"


class TrainingError(UserError):
    """Training cannot go on."""

    kind = "training error"


class HostError(UserError):
    """One of several hosts is missing, lost, or of another mind than the others."""

    kind = "host error"
