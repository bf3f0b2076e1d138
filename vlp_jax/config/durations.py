"""The three keys for the length of a run; a config sets one of them.

A duration set in a config file replaces that of the recipe on which the config is based.
"""

import ml_collections

DURATIONS = ("steps", "examples", "epochs")
_MARK = "_recipe_duration"  # an attribute of the ConfigDict, not a key


def as_recipe(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`config` as a recipe: a duration that is set from now on replaces its own."""
    settle(config)
    object.__setattr__(
        config,
        _MARK,
        {name: value for name, value in _durations(config).items() if value is not None},
    )
    return config


def settle(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`config` without its recipe's duration, where another one has been set since.

    Two durations set since are both kept; the parser reports them as an error.
    """
    recipe, now = vars(config).get(_MARK, {}), _durations(config)
    unchanged = [name for name, value in recipe.items() if now[name] == value]
    if any(value is not None and name not in unchanged for name, value in now.items()):
        config.update(dict.fromkeys(unchanged))
    return config


def _durations(config: ml_collections.ConfigDict) -> dict:
    return {name: config.get(name) for name in DURATIONS}
