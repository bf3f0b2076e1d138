"""Base of the parts of a model: towers, fusion and decoder."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from vlp_jax.config.section import Component
from vlp_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Component):
    """Base of the declarations of towers, fusions and decoders.

    Attributes:
      section: the key of the part in a config, for messages.
    """

    section: ClassVar[str]


def failures(check: Callable[..., Any], *arguments: Any) -> Iterator[str]:
    """The message of the ConfigError that a check raises, if any."""
    try:
        check(*arguments)
    except ConfigError as error:
        yield error.args[0]
