"""Lazy tables of the kinds of a section: the only lists of the components that a config can
select."""

import dataclasses
import importlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vlp_jax.errors import ConfigError

ROOT = "vlp_jax.experiment:Experiment"


class Kinds(Mapping[str, type]):
    """The classes of a section by their kind, each imported when it is asked for.

    Args:
      places: {kind: "module:Class"}.
      default: the kind of a section that names none; None: it has to name one.
    """

    def __init__(self, places: Mapping[str, str], default: str | None = None):
        self.places, self.default = dict(places), default
        self.names = {place: kind for kind, place in places.items()}

    def __getitem__(self, kind: str) -> type:
        return imported(self.places[kind])

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def choices(self) -> str:
        """What a config may give as kind, for messages."""
        return (
            f"one of {', '.join(self.places)}"
            if self.places
            else "a class of your own, module:Class"
        )

    def name_of(self, declaration: type) -> str:
        """The kind of a class; "module:Class" for one that is not in the table."""
        place = f"{declaration.__module__}:{declaration.__qualname__}"
        return self.names.get(place, place)


def imported(place: str) -> type:
    """The class at "module:Class"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def root_section() -> type:
    """The dataclass of a whole config.

    It is imported when it is asked for, since all components stand below it.
    """
    return imported(ROOT)


def outside_class(place: str, base: type, allowed: Collection[str] | None = None) -> type:
    """A class of the user's own code, which a config names as "module:Class".

    Args:
      place: the module, importable here, and the class.
      base: the class that it has to derive from.
      allowed: names of modules that may be imported for it. None: any; a class of another module is
        taken only where the module is already imported.
    Raises: ConfigError, without the key, for a class that does not exist or is of another kind, and
      for a module that may not be imported.
    """
    module, _, name = place.partition(":")
    if allowed is not None and module not in allowed and module not in sys.modules:
        raise ConfigError(
            f"names the class {place!r}, whose module would be imported; if you "
            f"trust it, import {module} first, or name it in `components`"
        )
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # of the user's own code
        raise ConfigError(
            f"names the class {place!r}, and importing {module} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if found is None:
        raise ConfigError(f"names the class {place!r}, and {module} has no {name!r}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"names the class {place!r}, which does not derive from "
            f"{base.__module__}.{base.__qualname__}"
        )
    if found is base or "__dataclass_params__" not in vars(found):
        raise ConfigError(
            f"names the class {place!r}, which is no dataclass of its own; write "
            "@dataclasses.dataclass(frozen=True, kw_only=True) above it"
        )
    required = [
        field.name
        for field in dataclasses.fields(found)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if required:
        raise ConfigError(
            f"names the class {place!r}, whose field {required[0]!r} has no default; give it one"
        )
    return found


def fields_named(name: str, kinds: Kinds) -> dict[str, Any]:
    """The default of a field in each kind that has it."""
    return {
        kind: getattr(declaration(), name)
        for kind, declaration in kinds.items()
        if any(field.name == name for field in dataclasses.fields(declaration))
    }
