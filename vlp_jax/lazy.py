"""Names of a package that are imported at their first use (PEP 562)."""

import importlib
from collections.abc import Mapping
from typing import Any


def lazy_attribute(package: str, places: Mapping[str, str], name: str) -> Any:
    """The object behind a public name of a package; its module is imported now.

    Args:
      package: the package, as `__name__` there.
      places: {name: "module:attribute"}, or {name: "module"} for a module itself.
      name: the attribute that was asked for.
    Raises:
      AttributeError: the package has no such name.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, attribute = places[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
