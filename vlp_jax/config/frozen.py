"""An immutable dict, as the value of a config key."""

from typing import Any, NoReturn


class FrozenDict(dict):
    """A dict that cannot be changed, hashable where its values are."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)

    def __or__(self, other: dict) -> dict:
        return dict(self) | other

    def _refuse(self, *arguments: Any, **keywords: Any) -> NoReturn:
        raise TypeError(
            "a section of a config is immutable; build a new one, with dataclasses.replace"
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]
