"""The three ways to say how long a run is, of which a config has one: what a file sets replaces the duration of the recipe that it
starts from."""

import ml_collections

DURATIONS = ("steps", "examples", "epochs")
_MARK = "_recipe_duration"  # an attribute of the ConfigDict, beside its keys


def as_recipe(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`config`, whose duration is replaced by another one that is set from now on."""
    settle(config)
    object.__setattr__(config, _MARK, {name: value for name, value in _durations(config).items() if value is not None})
    return config


def settle(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`config` without its recipe's duration, where another one has been set since. Two that were set since stay: an error."""
    recipe, now = vars(config).get(_MARK, {}), _durations(config)
    unchanged = [name for name, value in recipe.items() if now[name] == value]
    if any(value is not None and name not in unchanged for name, value in now.items()):
        config.update(dict.fromkeys(unchanged))
    return config


def _durations(config: ml_collections.ConfigDict) -> dict:
    return {name: config.get(name) for name in DURATIONS}
