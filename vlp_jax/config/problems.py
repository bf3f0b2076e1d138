"""Collects the problems of a config, so that all of them are reported at once."""

import contextlib
from collections.abc import Generator

from vlp_jax.errors import ConfigError, ConfigErrors


class Problems(list[str]):
    """Messages of ConfigErrors."""

    @contextlib.contextmanager
    def noted(self) -> Generator[None, None, None]:
        """Adds a ConfigError raised inside to the list, and suppresses it."""
        try:
            yield
        except ConfigErrors as error:
            self.extend(error.messages)
        except ConfigError as error:
            self.append(error.args[0])

    def report(self) -> None:
        """Raises the collected problems, if any.

        Raises: ConfigError for one problem, ConfigErrors for several.
        """
        messages = list(dict.fromkeys(self))
        if messages:
            raise ConfigError(messages[0]) if len(messages) == 1 else ConfigErrors(messages)
