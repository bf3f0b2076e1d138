"""Rules from the tensors of a public checkpoint to our parameters, and back.

A family writes its mapping as a tuple of rules, each made by a function of this module: their name,
our path, and the way in which the one is rearranged into the other. `{}` in a name is the number of
a layer, the same in both.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Shape = tuple[int, ...]
Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One or several tensors of theirs that make one or several parameters of ours.

    Attributes:
      theirs: their names.
      ours: our paths; those of other variables begin with the collection, as in
        "batch_stats/model/...".
      take: from their arrays and our shapes to our arrays.
      give: from our arrays to theirs.
      kind: the rearrangement in words, for reports.
      unless: names of theirs with which the rule does not hold.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    take: Callable[[Arrays, Sequence[Shape]], Arrays]
    give: Callable[[Arrays], Arrays]
    kind: str
    unless: tuple[str, ...] = ()

    def within(self, theirs: str, ours: str) -> "Rule":
        """The rule with prefixes before its names and paths."""
        return dataclasses.replace(
            self,
            theirs=tuple(f"{theirs}{name}" for name in self.theirs),
            unless=tuple(f"{theirs}{name}" for name in self.unless),
            ours=tuple(prefixed(ours, path) for path in self.ours),
        )

    def numbered(self, number: int) -> "Rule":
        """The rule for one layer."""
        return dataclasses.replace(
            self,
            theirs=tuple(name.replace("{}", str(number)) for name in self.theirs),
            unless=tuple(name.replace("{}", str(number)) for name in self.unless),
            ours=tuple(path.replace("{}", str(number)) for path in self.ours),
        )


Rules = tuple[Rule, ...]


def prefixed(prefix: str, path: str) -> str:
    """A path behind a prefix; that of a running statistic keeps its collection in front."""
    collection = "batch_stats/"
    if path.startswith(collection):
        return f"{collection}{prefix}{path.removeprefix(collection)}"
    return f"{prefix}{path}"


def within(theirs: str, ours: str, *rules: Rules | Rule) -> Rules:
    """All of the rules with a prefix of their names and one of our paths.

    Args:
      theirs: as in "vision_model.".
      ours: as in "model/image/".
      *rules: the rules.
    """
    return tuple(rule.within(theirs, ours) for rule in together(*rules))


def together(*rules: Rules | Rule) -> Rules:
    """All of the rules in one tuple."""
    return tuple(each for part in rules for each in ((part,) if isinstance(part, Rule) else part))


def one(
    theirs: str,
    ours: str,
    take: Callable[[np.ndarray, Shape], np.ndarray],
    give: Callable[[np.ndarray], np.ndarray],
    kind: str,
) -> Rule:
    """A rule from one tensor to one parameter."""
    return Rule(
        (theirs,),
        (ours,),
        lambda arrays, shapes: (take(arrays[0], shapes[0]),),
        lambda arrays: (give(arrays[0]),),
        kind,
    )


def same(theirs: str, ours: str) -> Rule:
    """The same array."""
    return one(theirs, ours, lambda array, shape: array, lambda array: array, "as it is")


def reshaped(theirs: str, ours: str, shape: Shape) -> Rule:
    """The same numbers in another shape: `shape` there, with -1 once, and that of our parameter
    here."""
    return one(
        theirs,
        ours,
        lambda array, here: array.reshape(here),
        lambda array: array.reshape(shape),
        "reshaped",
    )


def leading(theirs: str, ours: str, axes: int = 1) -> Rule:
    """The same array with this number of leading axes of length 1 here."""
    return one(
        theirs,
        ours,
        lambda array, here: array.reshape(here),
        lambda array: array.reshape(array.shape[axes:]),
        "reshaped",
    )


def transposed(theirs: str, ours: str) -> Rule:
    """A matrix [out, in] that is [in, out] here; further axes of ours are joined there."""
    return one(
        theirs,
        ours,
        lambda array, shape: array.T.reshape(shape),
        lambda array: array.reshape(len(array), -1).T,
        "transposed",
    )


def linear(theirs: str, ours: str) -> Rules:
    """A linear layer: weight [out, in] and bias, where there is one."""
    return transposed(f"{theirs}.weight", f"{ours}/kernel"), same(f"{theirs}.bias", f"{ours}/bias")


def norm(theirs: str, ours: str) -> Rules:
    """A LayerNorm: weight and bias."""
    return same(f"{theirs}.weight", f"{ours}/scale"), same(f"{theirs}.bias", f"{ours}/bias")


def to_heads(theirs: str, ours: str) -> Rules:
    """The linear layer of queries, keys or values: weight [H K, D] to kernel [D, H, K]."""
    return (
        transposed(f"{theirs}.weight", f"{ours}/kernel"),
        reshaped(f"{theirs}.bias", f"{ours}/bias", (-1,)),
    )


def from_heads(theirs: str, ours: str) -> Rules:
    """The linear layer behind attention: weight [D, H K] to kernel [H, K, D]."""
    kernel = one(
        f"{theirs}.weight",
        f"{ours}/kernel",
        lambda array, shape: array.T.reshape(shape),
        lambda array: array.reshape(-1, array.shape[-1]).T,
        "transposed",
    )
    return kernel, same(f"{theirs}.bias", f"{ours}/bias")


def attention(*, query: str, key: str, value: str, out: str, ours: str = "attention") -> Rules:
    """Four linear layers, by their names there."""
    return together(
        to_heads(query, f"{ours}/query"),
        to_heads(key, f"{ours}/key"),
        to_heads(value, f"{ours}/value"),
        from_heads(out, f"{ours}/out"),
    )


def fused_attention(weight: str, bias: str | None, out: str, *, ours: str = "attention") -> Rules:
    """Attention whose queries, keys and values come from one linear layer, in this order.

    Args:
      weight: the name of its weight, [3 H K, D].
      bias: that of its bias; None: it has none.
      out: the layer behind attention.
      ours: our path.
    """
    return (
        *fused_heads(weight, bias, tuple(f"{ours}/{name}" for name in ("query", "key", "value"))),
        *from_heads(out, f"{ours}/out"),
    )


def fused_heads(weight: str, bias: str | None, ours: Sequence[str]) -> Rules:
    """Linear layers of heads that are one layer there, as queries, keys and values often are.

    Args:
      weight: the name of its weight, [3 H K, D] of three layers.
      bias: that of its bias; None: it has none.
      ours: our paths.
    """
    kernel = Rule(
        (weight,),
        tuple(f"{path}/kernel" for path in ours),
        lambda arrays, shapes: [
            part.T.reshape(shape)
            for part, shape in zip(np.split(arrays[0], len(ours)), shapes, strict=True)
        ],
        lambda arrays: (np.concatenate([array.reshape(len(array), -1).T for array in arrays]),),
        "split and transposed",
    )
    if bias is None:
        return (kernel,)
    return (
        kernel,
        Rule(
            (bias,),
            tuple(f"{path}/bias" for path in ours),
            lambda arrays, shapes: [
                part.reshape(shape)
                for part, shape in zip(np.split(arrays[0], len(ours)), shapes, strict=True)
            ],
            lambda arrays: (np.concatenate([array.reshape(-1) for array in arrays]),),
            "split",
        ),
    )


def zeros(ours: str, weight: str, unless: str) -> Rule:
    """A parameter of zeros, for one that they have not.

    Args:
      ours: our path, such as that of a bias.
      weight: a tensor that they have; it gives nothing, and another rule takes it.
      unless: the name that a tensor for the parameter would have.
    """
    return Rule(
        (weight,),
        (ours,),
        lambda arrays, shapes: (np.zeros(shapes[0], np.float32),),
        lambda arrays: (),
        "zeros",
        (unless,),
    )


def gated(theirs: str, gate: str, ours: str) -> Rules:
    """A linear layer whose first half of outputs is the gate of the second.

    Args:
      theirs: its name.
      gate: our path of the gate.
      ours: our path of the other half.
    """
    paths = gate, ours

    def halves(name: str) -> Rule:
        return Rule(
            (f"{theirs}.{'weight' if name == 'kernel' else 'bias'}",),
            tuple(f"{path}/{name}" for path in paths),
            lambda arrays, shapes: [part.T for part in np.split(arrays[0], 2)],
            lambda arrays: (np.concatenate([array.T for array in arrays]),),
            "split and transposed",
        )

    return halves("kernel"), halves("bias")


def patches(theirs: str, ours: str) -> Rules:
    """A convolution whose stride is its size: weight [D, C, P, P] to kernel [P P C, D]."""
    return (
        one(
            f"{theirs}.weight",
            f"{ours}/kernel",
            lambda array, shape: array.transpose(2, 3, 1, 0).reshape(shape),
            unpatched,
            "transposed",
        ),
        same(f"{theirs}.bias", f"{ours}/bias"),
    )


def unpatched(kernel: np.ndarray) -> np.ndarray:
    """[P P 3, D] -> [D, 3, P, P]."""
    side = round((len(kernel) / 3) ** 0.5)
    return kernel.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


def class_and_positions(theirs: str, ours: str = "", *, dims: int = 2) -> Rule:
    """A table of positions whose first rows are those of class tokens.

    Args:
      theirs: its name; [C + N, D], or [1, C + N, D] with dims=3.
      ours: the prefix of our paths class_position [1, C, D] and position [1, N, D].
      dims: number of axes there.
    """

    def take(arrays: Arrays, shapes: Sequence[Shape]) -> Arrays:
        table, front = arrays[0].reshape(1, -1, arrays[0].shape[-1]), shapes[0][1]
        return table[:, :front], table[:, front:]

    def give(arrays: Arrays) -> Arrays:
        table = np.concatenate(arrays, axis=1)
        return (table if dims == 3 else table[0],)

    return Rule((theirs,), (f"{ours}class_position", f"{ours}position"), take, give, "split")


def first_rows(theirs: str, ours: str) -> Rule:
    """The first rows of a table [M, D] as our parameter [1, N, D]; the others are not read."""
    return one(
        theirs,
        ours,
        lambda array, shape: array[None, : shape[1]],
        lambda array: array[0],
        "first rows",
    )


def rows(theirs: str, *ours: str) -> Rule:
    """A table each of whose rows is a parameter."""
    return Rule(
        (theirs,),
        ours,
        lambda arrays, shapes: tuple(arrays[0]) if len(arrays[0]) == len(ours) else (),
        lambda arrays: (np.stack(list(arrays)),),
        "split",
    )


def joined(theirs: Sequence[str], ours: str, axis: int = 1) -> Rule:
    """Several tensors that are one parameter, along an axis on which each has the length 1."""
    return Rule(
        tuple(theirs),
        (ours,),
        lambda arrays, shapes: (np.concatenate(arrays, axis=axis),),
        lambda arrays: np.split(arrays[0], len(theirs), axis=axis),
        "joined",
    )


def convolution(theirs: str, ours: str) -> Rules:
    """A convolution: weight [out, in, h, w] to kernel [h, w, in, out]."""
    return (
        one(
            f"{theirs}.weight",
            f"{ours}/kernel",
            lambda array, shape: array.transpose(2, 3, 1, 0),
            lambda array: array.transpose(3, 2, 0, 1),
            "transposed",
        ),
        same(f"{theirs}.bias", f"{ours}/bias"),
    )


def batch_norm(theirs: str, ours: str) -> Rules:
    """A BatchNorm with its running statistics."""
    return (
        *norm(theirs, ours),
        same(f"{theirs}.running_mean", f"batch_stats/{ours}/mean"),
        same(f"{theirs}.running_var", f"batch_stats/{ours}/var"),
    )
