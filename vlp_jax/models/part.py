"""Base of the parts of a model: towers, fusion and decoder."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from vlp_jax.config.section import Component
from vlp_jax.errors import ConfigError
from vlp_jax.models.shapes import ModelShapes

if TYPE_CHECKING:
    from vlp_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Component):
    """Base of the declarations of towers, fusions and decoders.

    Attributes:
      section: the key of the part in a config, for messages.
    """

    section: ClassVar[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tower(Part):
    """Base of the declarations of image and text towers."""

    def check(self) -> None:
        """Checks the sizes.

        Raises: ConfigError where they do not fit together.
        """

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also the message of `check`, where it fails."""
        yield from super().validate(where, experiment)
        yield from failures(self.check)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartOnTowers(Part):
    """Base of the declarations of fusions and decoders."""

    def check(self, shapes: ModelShapes) -> None:
        """Checks the sizes, and that the part fits the towers.

        Raises: ConfigError where they do not fit together.
        """

    def validate(self, where: str, experiment: "Experiment") -> Iterator[str]:
        """Also the message of `check`, where both towers are valid."""
        yield from super().validate(where, experiment)
        try:
            shapes = experiment.model.shapes()
        except ConfigError:  # of a tower, among whose problems it is
            return
        yield from failures(self.check, shapes)


def failures(check: Callable[..., Any], *arguments: Any) -> Iterator[str]:
    """The message of the ConfigError that a check raises, if any."""
    try:
        check(*arguments)
    except ConfigError as error:
        yield error.args[0]
