"""The range of a kernel's terms, node by node, as float32 holds them.

In: a node and the ranges of what it is made of. Out: its `Range`. Loads may be anything that their
dtype holds; a square is not negative.

>>> from prism_jax.ir.nodes import Axis, Const, Load, Pointwise, Tensor, at
>>> i = Axis("i", 4)
>>> x = Load(Tensor("x", (4,), "float16"), (at(i),))
>>> square = Pointwise("mul", (x, x))
>>> range_of(square).low
0.0
>>> positive(Pointwise("rsqrt", (Pointwise("add", (square, Const(1e-6))),)))
True
>>> positive(Pointwise("rsqrt", (square,))), positive(x)
(False, False)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from prism_jax.ir.nodes import FLOATS, REAL, Carried, Const, Iota, Load, Node, Pointwise, Reduce
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import walk
from prism_jax.ir.ranges import Range, full, of_monoid, of_operator, point

__all__ = ["LARGEST", "clipped", "positive", "range_of", "step"]

LARGEST = float(np.finfo(np.float32).max)


@lru_cache(maxsize=4096)
def range_of(root: Node) -> Range:
    """The range of a term, whatever its loads and accumulators hold."""
    known: dict[Node, Range] = {}
    for node in walk([root]):
        known[node] = step(node, known, {}, False)
    return known[root]


def positive(root: Node) -> bool:
    """Whether a term is finite and not below zero, or NaN. It is zero by underflow only, as 1 over
    what overflowed is.
    """
    found = range_of(root)
    return root.sort == REAL and found.low >= 0 and found.high < math.inf


def step(
    node: Node,
    known: Mapping[Node, Range],
    carried: Mapping[tuple[str, str], Range],
    finite: bool,
) -> Range:
    """The range of a node from those of its operands, accumulators' by name and phase; `finite`: a
    load is taken to be a finite number, a divisor not to be zero.
    """
    return clipped(_step(node, known, carried, finite), node.sort)


def _step(
    node: Node,
    known: Mapping[Node, Range],
    carried: Mapping[tuple[str, str], Range],
    finite: bool,
) -> Range:
    match node:
        case Const():
            return point(node.value)
        case Iota():
            size = node.axis.size
            return Range(0.0, float(size - 1) if isinstance(size, int) else math.inf)
        case Load():
            return _load(node, finite)
        case Carried():
            return carried.get((node.accumulator, node.phase), full(node.sort))
        case Reduce():
            sizes = [a.size for a in node.axes if isinstance(a.size, int)]
            count = math.prod(sizes) if len(sizes) == len(node.axes) else None
            return of_monoid(node.monoid, node.sort, known[node.body], count)
        case Pointwise():
            args = tuple(known[a] for a in node.args)
            if finite and node.op == "div" and node.sort == REAL:
                top = args[0]
                none = (top.low, top.high) == (0.0, 0.0)
                return top if none else Range(-LARGEST, LARGEST, top.nan)
            found = of_operator(node.op, node.sort, node.parameter, args)
            square = node.op == "mul" and node.sort == REAL and node.args[0] is node.args[1]
            return Range(max(0.0, found.low), found.high, args[0].nan) if square else found
        case _:
            return full(node.sort)


def _load(node: Load, finite: bool) -> Range:
    if node.sort != REAL or node.tensor.dtype not in FLOATS:
        return full(node.sort)
    most = math.inf
    if finite:
        import ml_dtypes

        most = float(ml_dtypes.finfo(numpy_dtype(node.tensor.dtype)).max)
    found = Range(-most, most, not finite)
    return found | point(node.fill.value) if node.fill is not None else found


def clipped(found: Range, sort: str) -> Range:
    """Ends that float32 cannot hold are infinite."""
    if sort != REAL:
        return found
    low = -math.inf if found.low < -LARGEST else found.low
    high = math.inf if found.high > LARGEST else found.high
    return Range(low, high, found.nan)
