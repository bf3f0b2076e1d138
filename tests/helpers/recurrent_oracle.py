"""Steps of recurrent cells in float64 NumPy, from their papers' equations."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def affine(gate, x):
    return x @ gate["kernel"] + gate.get("bias", 0.0)


def lstm_step(cell, carry, x):
    """Gers et al. 2000: the input, forget and output gates and the candidate of a step see its word
    and the state before."""
    c, h = carry
    i, f, o = (sigmoid(affine(cell[f"i{gate}"], x) + affine(cell[f"h{gate}"], h)) for gate in "ifo")
    c = f * c + i * np.tanh(affine(cell["ig"], x) + affine(cell["hg"], h))
    return c, o * np.tanh(c)


def gru_step(cell, carry, x):
    """Cho et al. 2014, equations 5 to 8, the reset gate on the product with the state."""
    (h,) = carry
    r, z = (sigmoid(affine(cell[f"i{gate}"], x) + affine(cell[f"h{gate}"], h)) for gate in "rz")
    return (z * h + (1 - z) * np.tanh(affine(cell["in"], x) + r * affine(cell["hn"], h)),)


STEPS, STATES = {"lstm": lstm_step, "gru": gru_step}, {"lstm": 2, "gru": 1}


def states(kind, cell, words):
    """The states of a cell of kind "lstm" or "gru" along words [L, D], from zero."""
    carry, found = (
        (np.zeros(cell["hi" if kind == "lstm" else "hr"]["kernel"].shape[0]),) * STATES[kind],
        [],
    )
    for x in words:
        carry = STEPS[kind](cell, carry, x)
        found.append(carry[-1])
    return found
