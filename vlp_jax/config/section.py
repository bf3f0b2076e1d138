"""Base classes of the sections of a config.

A section is a frozen dataclass; its fields are the keys. It can be built in Python as well as from
a config file, with the same checks.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from vlp_jax.config.parse import checked_fields
from vlp_jax.config.registry import Kinds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of an experiment that is reduced to run on a laptop's CPU.

    Attributes:
      width, depth, heads, mlp_dim: of each stack of layers.
      batch_size: examples per step.
      vocab_size: of the embedded tokenizer, with a mask token where an objective needs one.
      length: of a text, at most.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int
    batch_size: int
    vocab_size: int
    length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Base of all sections.

    Values are checked against the types and ranges of the fields. Lists become tuples and dicts
    become immutable, so that a section is hashable.

    Raises: ConfigError for an invalid value, ConfigErrors for several.
    """

    def __post_init__(self):
        for name, value in checked_fields(self).items():
            object.__setattr__(self, name, value)

    def ignored(self, experiment: Any) -> Mapping[str, str]:
        """The keys without an effect with the other settings, each with the reason.

        A key at its default is no error.

        Args:
          experiment: the whole config.
        Returns: {key: "with norm='batch'"}.
        """
        return {}

    def validate(self, where: str, experiment: Any) -> Iterator[str]:
        """The problems of the section with the rest of the config; ranges are checked before.

        Args:
          where: the section's dotted key, for messages.
          experiment: the whole config.
        Yields: messages that begin with a key.
        """
        default = type(self)()
        for key, reason in self.ignored(experiment).items():
            if getattr(self, key) != getattr(default, key):
                yield f"{where}.{key}: has no effect {reason}"

    def completed(self, where: str, experiment: Any) -> Self:
        """The section with values that follow from other sections, such as the size of a head.

        It is called once the whole config is valid.
        """
        return self

    def smoke(self, sizes: Sizes) -> Self:
        """The section as in a config's smoke variant, which runs in seconds on a laptop's CPU.

        What defines the experiment (kinds, pooling, norms, activations, ...) stays.
        """
        return self

    def small(self, sizes: Sizes) -> Self:
        """The section as in a config's small variant, which learns from the embedded data in
        minutes."""
        return self.smoke(sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component(Section):
    """Base of the sections of several kinds, each with a dataclass of its own.

    The base class of a kind of component (image towers, objectives, ...) has `kinds`, the table of
    its classes, which a config selects by their `kind`.
    """

    kinds: ClassVar[Kinds]

    @property
    def kind(self) -> str:
        """The name by which a config selects this class."""
        return self.kinds.name_of(type(self))

    @classmethod
    def of(cls, kind: str | None = None, **fields: Any) -> Self:
        """A component by its kind.

        Args:
          kind: a name of the table. Default: the table's default.
          **fields: of the class of that kind.
        Raises: KeyError for an unknown kind, and as the class.
        """
        return cls.kinds[kind or cls.kinds.default or ""](**fields)


def component(base: type[Component], kind: str | None = None) -> Any:
    """A dataclass field with a component.

    Args:
      base: the base class of its kinds, with the table.
      kind: of a section that names none. Default: the table's default.
    """
    chosen = kind or base.kinds.default
    return dataclasses.field(
        default_factory=lambda: base.kinds[chosen or ""](), metadata={"kind": chosen}
    )


def optional_component(kind: str | None = None) -> Any:
    """A dataclass field with a component or None, None by default; `kind` is that of a section that
    names none."""
    return dataclasses.field(default=None, metadata={} if kind is None else {"kind": kind})
