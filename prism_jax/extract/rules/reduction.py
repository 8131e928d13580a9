"""Reductions over whole dimensions."""

from __future__ import annotations

import math

from prism_jax.extract.flat import Equation
from prism_jax.extract.integers import cast, pointwise
from prism_jax.extract.rule import Point, Pull, rule
from prism_jax.ir.nodes import FLOATS, Axis, Const, Index, Node, Precision, Reduce

MONOIDS = {
    "reduce_sum": "sum", "reduce_prod": "prod", "reduce_max": "max", "reduce_min": "min",
    "reduce_or": "any", "reduce_and": "all",
}  # fmt: skip


def accumulator(dtype: str) -> str:
    """The dtype in which sums of a float dtype are kept: at least float32, as XLA does."""
    return "float64" if dtype == "float64" else "float32"


def reduce_node(
    monoid: str, axes: tuple[Axis, ...], body: Node, precision: Precision | None = None
) -> Node:
    """A reduction; axes that the body does not have are counted instead of stepped through."""
    used = tuple(axis for axis in axes if axis in body.axes_free)
    copies = math.prod(axis.size for axis in axes if axis not in used if isinstance(axis.size, int))
    if used:
        body = Reduce(monoid, used, body, precision)
    if copies == 1 or monoid not in ("sum", "prod"):
        return body
    if monoid == "sum":
        return pointwise("mul", (body, Const(copies, body.sort)))
    return pointwise("integer_pow", (body,), copies)


def _operand(e: Equation, p: Point, whole: bool = False) -> tuple[list[Index], tuple[Axis, ...]]:
    """The operand's index with fresh axes in the reduced dimensions, and those axes."""
    operand, gone = e.inputs[0], set(e.params["axes"])
    wide = [dim for dim in sorted(gone) if operand.shape[dim] != 1]
    found, axes = p.bind(operand, wide, whole)
    rest = iter(p.index)
    index = [
        found.get(dim, Index()) if dim in gone else next(rest) for dim in range(len(operand.shape))
    ]
    return index, axes


def _logical(e: Equation) -> str | None:
    if e.primitive in ("reduce_or", "reduce_and") and e.inputs[0].dtype != "bool":
        return "works on the bits of integers"
    return None


@rule(*MONOIDS, kind="reduction", check=_logical)
def reduce_(e: Equation, p: Point) -> Pull:
    """A monoid over the reduced dimensions. Sums and products record their accumulation dtype. It
    is their elements' dtype, too: XLA fuses what computes those, and rounds nothing between.
    """
    index, axes = _operand(e, p)
    body = yield p.ask(e.inputs[0], index)
    dtype, monoid = e.inputs[0].dtype, MONOIDS[e.primitive]
    if dtype == "bool":
        monoid = {"max": "any", "min": "all"}.get(monoid, monoid)
    precision = None
    if dtype in FLOATS and monoid in ("sum", "prod"):
        wide = accumulator(dtype)
        precision = Precision(wide, wide, e.outputs[0].dtype, "highest")
    return reduce_node(monoid, axes, body, precision)


@rule("argmax", "argmin", kind="reduction")
def arg(e: Equation, p: Point) -> Pull:
    """The first index of the extreme value, over one axis even where the dimension is merged."""
    index, axes = _operand(e, p, whole=True)
    body = yield p.ask(e.inputs[0], index)
    sort = e.outputs[0].dtype
    used = tuple(axis for axis in axes if axis in body.axes_free)
    if not used:
        return Const(0, sort)
    body = cast(body, "int32") if body.sort == "bool" else body
    return Reduce(e.primitive, used, body, None, sort)
