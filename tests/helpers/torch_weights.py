"""Weights of models in torch by which golden files were made: drawn from their names, in the
scripts and in the tests alike, so that no file needs to hold them.
"""

import json
import zlib

import numpy as np


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter or running statistic, float32, from its name in torch and its shape; none is zero
    or one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        return (rng.normal(size=shape) * np.prod(shape[1:]) ** -0.5).astype(np.float32)
    low, high = (0.5, 1.5) if name.endswith(("running_var", "weight")) else (-0.2, 0.2)
    return rng.uniform(low, high, size=shape).astype(np.float32)


def fill(model) -> str:
    """In a script: draws every trained parameter of a module of torch, and returns their shapes by
    name, which `Tensors` reads."""
    import torch

    shapes = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                shapes[name] = tuple(parameter.shape)
                parameter.copy_(torch.from_numpy(drawn(name, shapes[name])))
    model.eval()
    return json.dumps(shapes)


class Tensors:
    """In a test: takes out each of the tensors with these shapes once, as our modules hold them."""

    def __init__(self, shapes: str):
        self.left = {
            name: drawn(name, tuple(shape)) for name, shape in json.loads(str(shapes)).items()
        }

    def __call__(self, name: str) -> np.ndarray:
        return self.left.pop(name)

    def norm(self, name: str) -> dict:
        return {"scale": self(f"{name}.weight"), "bias": self(f"{name}.bias")}

    def dense(self, name: str) -> dict:
        bias = {"bias": self(f"{name}.bias")} if f"{name}.bias" in self.left else {}
        return {"kernel": self(f"{name}.weight").T, **bias}

    def attention(self, query: str, key: str, value: str, out: str, heads: int) -> dict:
        """Four linear layers, by their names."""
        inputs = {"query": query, "key": key, "value": value}
        return {ours: in_heads(self.dense(theirs), heads) for ours, theirs in inputs.items()} | {
            "out": self.output(out, heads)
        }

    def output(self, name: str, heads: int) -> dict:
        dense = self.dense(name)
        return dense | {"kernel": dense["kernel"].reshape(heads, -1, dense["kernel"].shape[1])}

    def patches(self, name: str) -> dict:
        """A convolution whose stride is its size."""
        return {"kernel": kernel_of_patches(self(f"{name}.weight")), "bias": self(f"{name}.bias")}


def kernel_of_patches(weight: np.ndarray) -> np.ndarray:
    """[D, C, P, P] -> [P P C, D]."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))


def in_heads(dense: dict, heads: int) -> dict:
    """kernel [D, H K], bias [H K] -> [D, H, K], [H, K]."""
    return {name: value.reshape(*value.shape[:-1], heads, -1) for name, value in dense.items()}


def three_in_one(dense: dict, heads: int) -> dict:
    """Query, key and value of one linear layer {kernel: [D, 3 D], bias: [3 D]}."""
    parts = {name: np.split(value, 3, axis=-1) for name, value in dense.items()}
    return {
        name: in_heads({key: value[i] for key, value in parts.items()}, heads)
        for i, name in enumerate(("query", "key", "value"))
    }
