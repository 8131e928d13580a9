"""Contractions: `Reduce(sum, k, a * b)` with a precision record."""

from __future__ import annotations

from typing import Any

from prism_jax.extract.flat import Equation
from prism_jax.extract.integers import cast, pointwise
from prism_jax.extract.rule import Point, Pull, rule
from prism_jax.extract.rules.reduction import accumulator, reduce_node
from prism_jax.ir.nodes import FLOATS, REAL, Index, Precision

_ENUM = {"DEFAULT": "default", "HIGH": "tf32", "HIGHEST": "highest"}
_STRICTNESS = ("default", "tf32", "highest")


def algorithm(precision: Any) -> str | None:
    """The name of an equation's `precision` parameter; None if it has no name of ours.

    None, `Precision` (one or a pair, where the stricter counts) and `DotAlgorithmPreset`. On NVIDIA
    "high" allows TF32, as XLA reads it.
    """
    if precision is None:
        return "default"
    if isinstance(precision, tuple):
        names = [algorithm(each) for each in precision]
        known = [name for name in names if name in _STRICTNESS]
        return max(known, key=_STRICTNESS.index) if len(known) == len(names) else None
    name = getattr(precision, "name", None)
    if not isinstance(name, str):
        return None
    return _ENUM.get(name, name.lower())


def _known_precision(e: Equation) -> str | None:
    named = algorithm(e.params.get("precision")) is not None
    return None if named else "asks for a product algorithm without a name"


def wider(a: str, b: str) -> str:
    """Of two operand dtypes the one that holds the other's values best."""
    order = [*FLOATS]
    return max(a, b, key=lambda name: (name in FLOATS, order.index(name) if name in order else 0))


@rule("dot_general", kind="contraction", check=_known_precision)
def dot_general(e: Equation, p: Point) -> Pull:
    """Batch dimensions first, then the free ones of the left and of the right operand."""
    left, right = e.inputs
    (left_sum, right_sum), (left_batch, right_batch) = e.params["dimension_numbers"]
    found, axes = p.bind(left, [dim for dim in left_sum if left.shape[dim] != 1])
    at_left: dict[int, Index] = {dim: found.get(dim, Index()) for dim in left_sum}
    at_right = {b: at_left[a] for a, b in zip(left_sum, right_sum, strict=True)}
    rest = iter(p.index)
    for a, b in zip(left_batch, right_batch, strict=True):
        at_left[a] = at_right[b] = next(rest)
    for side, dims in ((left, at_left), (right, at_right)):
        for dim in range(len(side.shape)):
            if dim not in dims:
                dims[dim] = next(rest)
    x = yield p.ask(left, [at_left[dim] for dim in range(len(left.shape))])
    y = yield p.ask(right, [at_right[dim] for dim in range(len(right.shape))])
    result = e.outputs[0].dtype
    if result in FLOATS:
        x, y = (v if v.sort == REAL else cast(v, result) for v in (x, y))
        precision = Precision(
            wider(left.dtype, right.dtype),
            accumulator(result),
            result,
            algorithm(e.params.get("precision")) or "default",
        )
    else:
        x, y = cast(x, result), cast(y, result)
        precision = Precision(left.dtype, result, result)
    return reduce_node("sum", axes, pointwise("mul", (x, y)), precision)
