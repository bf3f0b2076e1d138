"""What is wrong with a config, collected, so that all of it is reported at once."""

import contextlib
from collections.abc import Iterator

from vlp_jax.errors import ConfigError, ConfigErrors


class Problems(list[str]):
    """Messages of ConfigErrors."""

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """A ConfigError that is raised inside is added to the list, and goes no further."""
        try:
            yield
        except ConfigErrors as error:
            self.extend(error.messages)
        except ConfigError as error:
            self.append(error.args[0])

    def report(self) -> None:
        """Raises: ConfigError where there is one problem, ConfigErrors where there are several."""
        messages = list(dict.fromkeys(self))
        if messages:
            raise ConfigError(messages[0]) if len(messages) == 1 else ConfigErrors(messages)
