"""What the layouts of released research code have in common: numbers that their configs lack."""

import re
from collections.abc import Mapping
from typing import Any

from vlp_jax.errors import CheckpointError
from vlp_jax.weights.family import Family
from vlp_jax.weights.rules import Shape

HEAD_WIDTH = 64  # of towers whose number of heads no config has
# Names of tokenizers that need no owner in such configs, and those of the hub.
TOKENIZERS = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
}


class ReleasedCode(Family):
    """An architecture in its released code's own layout, which is only read."""

    exports = False


def heads_of(width: int) -> int:
    """The heads of a tower of this width."""
    return width // HEAD_WIDTH


def depth_of(shapes: Mapping[str, Shape], prefix: str) -> int:
    """The number of layers whose tensors have this prefix and a number."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    return 1 + max((int(match[1]) for name in shapes if (match := pattern.match(name))), default=-1)


def rows_of(shapes: Mapping[str, Shape], name: str, place: str) -> int:
    """The length of the first axis of a tensor.

    Raises:
      CheckpointError: there is no such tensor.
    """
    if name not in shapes:
        raise CheckpointError(f"{place}: its folder lacks {name}")
    return shapes[name][0]


def tokenizer_of(name: str, tokens: Mapping[str, str]) -> dict[str, Any]:
    """The keys of `data.text` of a tokenizer.

    Args:
      name: its name on the hub, or one of TOKENIZERS.
      tokens: its special tokens, "start", "end" and "padding".
    """
    return {
        "data.text.tokenizer": TOKENIZERS.get(name, name),
        **{f"data.text.{key}_token": token for key, token in tokens.items()},
    }
