"""Small counts that closed forms are made of, for every kind of number that these are run on.

In: sizes as Python integers, NumPy arrays, sympy expressions or recorded numbers (`ir.tape`). Out:
the same kind. `distinct` is a lower bound that holds for any emitter: what must cross the memory's
wires once.

>>> ceil_div(7, 2), width("bfloat16"), width("float32"), minimum(3, 5), maximum(3, 5)
(4, 2, 4, 3, 5)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prism_jax.ir.nodes import Axis, Index, Load, Node, Pointwise
from prism_jax.ir.operations import PLAIN, ceiling, choice
from prism_jax.ir.program import contents
from prism_jax.ir.tape import Traced

Number = Any
"""int, NumPy integer array, sympy expression, or recorded number."""

WIDTH = {"bool": 1, "bfloat16": 2}


@functools.cache
def width(dtype: str) -> int:
    """Bytes of one element."""
    if dtype in WIDTH:
        return WIDTH[dtype]
    digits = "".join(c for c in dtype.split("_")[0].split("e")[0] if c.isdigit())
    return max(1, int(digits) // 8)


def size_of(name: str, sizes: Mapping[str, int]) -> int | None:
    """The size of an axis by name; a primed axis that is not listed has the size of the one that it
    was made from.
    """
    while name not in sizes and name.endswith("'"):
        name = name[:-1]
    return sizes.get(name)


def ceil_div(a: Number, b: Number) -> Number:
    """a / b rounded up, for any kind of number."""
    if hasattr(a, "free_symbols") or hasattr(b, "free_symbols"):
        import sympy

        return sympy.ceiling(sympy.sympify(a) / b)
    return -(-a // b)


def distinct(load: Load, extent: Callable[[Axis], Number]) -> Number:
    """Elements of its tensor that a load over all values of its axes reads at least.

    Exact where every dimension has axes of its own and no guard; a gathered dimension counts one
    element, a guarded one the positions inside.
    """
    total: Number = 1
    used: set[Axis] = set()
    guarded = {a for g in load.guard for a in g.index.axes_free}
    for index in load.index:
        axes = [t for t, _ in index.terms if isinstance(t, Axis)]
        if index.nodes or not used.isdisjoint(axes):
            continue
        used.update(axes)
        if not guarded.isdisjoint(axes):
            guards = [g for g in load.guard if not set(g.index.axes_free).isdisjoint(axes)]
            simple = index.terms == ((axes[0], 1),) and all(g.index == index for g in guards)
            if simple and len(guards) == 1:
                low, high = max(guards[0].low - index.offset, 0), guards[0].high - index.offset
                total = total * maximum(minimum(extent(axes[0]), high) - low, 0)
            else:
                total = total * 0
        else:
            total = total * _positions(index, axes, extent)
    return total


def certain_loads(roots: Iterable[Node]) -> tuple[Load, ...]:
    """The loads whose elements every way to compute these terms reads: not those behind a mask over
    the values of axes, which may say of whole tiles that they are not needed.
    """
    return tuple(dict.fromkeys(load for root in roots for load in _certain(root)))


@functools.lru_cache(maxsize=1 << 14)
def _certain(root: Node) -> tuple[Load, ...]:
    return tuple(_unmasked(root))


def _unmasked(root: Node) -> Iterator[Load]:
    stack, seen = [root], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Load):
            yield node
            stack.extend(node.index_nodes)
        else:
            masks = isinstance(node, Pointwise) and node.op == "where"
            masked = masks and contents(node.children[0]).positional
            stack.extend(node.children[:1] if masked else node.children)


def _positions(index: Index, axes: list[Axis], extent: Callable[[Axis], Number]) -> Number:
    """How many values an affine index takes: the product of its axes' sizes where their steps do
    not overlap, as in a merged dimension, else what a sum of arithmetic progressions takes at
    least.
    """
    terms = sorted(((abs(c), a) for a, c in index.terms if isinstance(a, Axis)), key=lambda t: t[0])
    reach, apart = 0, True
    for step, axis in terms:
        size = axis.size if isinstance(axis.size, int) else None
        apart = apart and step > reach and size is not None
        reach += step * ((size or 1) - 1)
    if apart or len(axes) == 1:
        return math.prod(extent(a) for a in axes)
    return sum(extent(a) - 1 for a in axes) + 1


def minimum(a: Number, b: Number) -> Number:
    """The smaller of two numbers of any kind."""
    if type(a) is Traced:
        return a.minimum(b)
    if isinstance(a, PLAIN) and isinstance(b, PLAIN):
        return min(a, b)
    return _extreme("minimum", "Min", a, b)


def maximum(a: Number, b: Number) -> Number:
    """The larger of two numbers of any kind."""
    if type(a) is Traced:
        return a.maximum(b)
    if isinstance(a, PLAIN) and isinstance(b, PLAIN):
        return max(a, b)
    return _extreme("maximum", "Max", a, b)


def rounded_up(a: Number) -> Number:
    """The least integer that is not smaller; sympy expressions have `ceil_div`."""
    return a.ceil() if isinstance(a, Traced) else ceiling(a)


def select(condition: Number, yes: Number, no: Number) -> Number:
    """One of two numbers, element by element for arrays."""
    if isinstance(condition, Traced):
        return condition.choose(yes, no)
    return choice(condition, yes, no)


def _extreme(name: str, symbolic: str, a: Number, b: Number) -> Number:
    """By the name that numpy and traced numbers have for it, or by sympy's."""
    if isinstance(a, Traced) or isinstance(b, Traced):
        return getattr(a, name)(b) if isinstance(a, Traced) else getattr(b, name)(a)
    if hasattr(a, "free_symbols") or hasattr(b, "free_symbols"):
        import sympy

        return getattr(sympy, symbolic)(a, b)
    import numpy as np

    return getattr(np, name)(a, b)
