"""Settings of an architecture under their names there and here."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

from vlp_jax.errors import CheckpointError, ConfigError

ACTIVATIONS = types.MappingProxyType(
    {
        "gelu": "gelu",
        "gelu_python": "gelu",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "quick_gelu": "quick_gelu",
        "relu": "relu",
    }
)


@dataclasses.dataclass(frozen=True)
class Key:
    """A setting that both have.

    Attributes:
      theirs: its dotted key in their config.
      ours: its dotted key in an `Experiment`.
      values: {value there: value here}; of several values there for one here, the first is written.
        Empty: values are the same.
    """

    theirs: str
    ours: str
    values: Mapping[Any, Any] = dataclasses.field(default_factory=dict)

    def take(self, theirs: Mapping[str, Any], place: str) -> Any:
        """The value here.

        Raises:
          CheckpointError: their config lacks it, or it has a value that we do not have.
        """
        value = look_up(theirs, self.theirs, place)
        if not self.values:
            return value
        if value not in self.values:
            raise CheckpointError(
                f"{place}: {self.theirs} is {value!r}, which is not supported; expected "
                f"{', '.join(map(repr, self.values))}"
            )
        return self.values[value]

    def give(self, value: Any) -> Any:
        """The value there.

        Raises:
          ConfigError: they have no such value.
        """
        if not self.values:
            return value
        for there, here in self.values.items():
            if here == value:
                return there
        raise ConfigError(
            f"{self.ours}: {value!r} cannot be exported; the format has "
            f"{', '.join(map(repr, dict.fromkeys(self.values.values())))}"
        )


@dataclasses.dataclass(frozen=True)
class Given:
    """A setting of theirs that must have one value, as we have no other.

    Attributes:
      theirs: its dotted key.
      value: the value.
      also: further values that mean the same for our models.
    """

    theirs: str
    value: Any
    also: tuple[Any, ...] = ()

    def check(self, theirs: Mapping[str, Any], place: str) -> None:
        """Checks the value; a setting that is absent has it.

        Raises:
          CheckpointError: it is another one.
        """
        found = look_up(theirs, self.theirs, place, self.value)
        if found not in (self.value, *self.also):
            raise CheckpointError(
                f"{place}: {self.theirs} is {found!r}, and only "
                f"{' and '.join(map(repr, (self.value, *self.also)))} is supported"
            )


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of an architecture.

    Attributes:
      keys: those that both have.
      given: theirs that we have no key for.
      fixed: {our dotted key: value} that the architecture always has.
    """

    keys: Sequence[Key]
    given: Sequence[Given] = ()
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def take(self, theirs: Mapping[str, Any], place: str) -> dict[str, Any]:
        """{our dotted key: value} of their config.

        Args:
          theirs: their config, with its defaults.
          place: its file, for messages.
        Raises:
          CheckpointError: as `Key.take` and `Given.check`.
        """
        for given in self.given:
            given.check(theirs, place)
        return {**self.fixed, **{key.ours: key.take(theirs, place) for key in self.keys}}

    def give(self, ours: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Their config.

        Args:
          ours: {our dotted key: value}, with resolved sizes.
          defaults: their config at its defaults.
        Raises:
          ConfigError: a value that they do not have.
        """
        found = copied(defaults)
        for given in self.given:
            put(found, given.theirs, given.value)
        for key in self.keys:
            put(found, key.theirs, key.give(ours[key.ours]))
        return found


def look_up(tree: Mapping[str, Any], key: str, place: str, *default: Any) -> Any:
    """The value at a dotted key of a nested dict.

    Raises:
      CheckpointError: it is absent, and there is no default.
    """
    value: Any = tree
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            if default:
                return default[0]
            raise CheckpointError(f"{place}: lacks {key}")
        value = value[part]
    return value


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value at a dotted key of a nested dict."""
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of the dicts of a tree."""
    return {
        key: copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()
    }


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        put(tree, key, value)
    return tree
