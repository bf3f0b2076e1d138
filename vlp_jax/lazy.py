"""Names of a package that are imported at their first use (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names are imported at their first
    use.

    Args:
      package: the package, as `__name__` there.
      places: {name: "module:attribute"}, or {name: "module"} for a module itself.
    Returns: the two functions. The first raises AttributeError for a name that is not in `places`.
    """

    def attribute_of(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = places[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found

    return attribute_of, lambda: sorted({*vars(sys.modules[package]), *places})
