"""The operations of a traced program's products."""

import math


def counted_flops(program):
    """Two operations for every multiplication of the products and convolutions in a traced
    program."""
    total = 0
    for equation in program.eqns:
        inner = [
            value
            for value in equation.params.values()
            if hasattr(value, "eqns") or hasattr(value, "jaxpr")
        ]
        rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += rounds * sum(counted_flops(getattr(value, "jaxpr", value)) for value in inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += (
                2
                * equation.outvars[0].aval.size
                * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            )
        elif equation.primitive.name == "conv_general_dilated":
            total += (
                2 * equation.outvars[0].aval.size * math.prod(equation.invars[1].aval.shape[:3])
            )
    return total
