"""Closed forms of a kernel: blocks, bytes, arithmetic, footprint, as functions of its size symbols.

The same code runs on three kinds of numbers: Python integers, NumPy arrays (thousands of size
assignments in one call) and sympy expressions (to print a form, or to reason about it). Counts are
exact: a ragged last tile counts what it really holds, so an instrumented run of the instantiated
sGraph counts the same bytes and operations.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Reduce, Store, Tensor, at
>>> from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop
>>> i, k = Axis("i", 100), Axis("k", 64)
>>> x, y = Tensor("x", (100, 64), "float16"), Tensor("y", (100,), "float32")
>>> total = Accumulator("total", "sum", Load(x, (at(i), at(k))), (i,))
>>> loop = Loop(k, "T_k", (total,))
>>> kernel = Kernel("rows", (GridAxis(i, "T_i"),), (loop,), (Store(y, (at(i),), total.carried()),))
>>> form = forms(kernel, {"T_i": 16, "T_k": 32})
>>> form.blocks, form.loaded, form.compulsory, form.stored
(7, 12800, 12800, 400)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Carried,
    Load,
    Node,
    Pointwise,
    Reduce,
    Size,
    Store,
    Tensor,
)
from prism_jax.ir.ops import OPS
from prism_jax.ir.sgraph import Kernel, Loop

Number = Any
"""int, NumPy integer array, or sympy expression."""

WIDTH = {"bool": 1, "bfloat16": 2}


def width(dtype: str) -> int:
    """Bytes of one element."""
    if dtype in WIDTH:
        return WIDTH[dtype]
    digits = "".join(c for c in dtype.split("_")[0].split("e")[0] if c.isdigit())
    return max(1, int(digits) // 8)


def ceil_div(a: Number, b: Number) -> Number:
    """a / b rounded up, for any kind of number."""
    if hasattr(a, "free_symbols") or hasattr(b, "free_symbols"):
        import sympy

        return sympy.ceiling(sympy.sympify(a) / b)
    return -(-a // b)


@dataclass(frozen=True)
class Form:
    """Counts for one launch. Bytes are bytes; `arithmetic` counts operations by unit.

    `loaded` is what all blocks read together (reloads by other blocks included), `compulsory` what
    must be read at least once. Units: ("dot", operand dtype) multiply-adds x 2; "other"; "special".
    `accumulators` (elements), `operands` (bytes loaded in one step) and `widest` (elements of the
    largest intermediate tile) are one block's footprint.
    """

    blocks: Number
    steps: Number
    loaded: Number
    compulsory: Number
    stored: Number
    arithmetic: dict[Any, Number] = field(default_factory=dict[Any, Any])
    accumulators: Number = 0
    operands: Number = 0
    widest: Number = 0


class _Counter:
    def __init__(self, kernel: Kernel, sizes: Mapping[str, Number]) -> None:
        self.sizes = sizes
        self.grid = {g.axis: self.value(g.tile) for g in kernel.grid}
        self.splits = {loop.split: loop for loop in kernel.all_loops if loop.split is not None}
        self.arithmetic: dict[Any, Number] = {}
        self.loaded: Number = 0
        self.operands: Number = 0
        self.widest: Number = 0
        self.touched: dict[Tensor, Number] = {}

    def value(self, size: Size) -> Number:
        return self.sizes[size] if isinstance(size, str) else size

    def blocks(self, axis: Axis) -> Number:
        return ceil_div(self.value(axis.size), self.grid[axis])

    def all_blocks(self) -> Number:
        return math.prod(self.blocks(a) for a in self.grid)

    def steps(self, loop: Loop) -> Number:
        return ceil_div(self.value(loop.axis.size), self.value(loop.tile))

    def executed(self, axes: tuple[Axis, ...], loops: tuple[Loop, ...]) -> Number:
        """How many elements of a node with these free axes are computed by all blocks together,
        inside these loops.
        """
        total: Number = 1
        split_here = {loop.split for loop in loops}
        for axis in self.grid:
            if axis in split_here:
                continue  # its blocks share the loop's steps
            total = total * (self.value(axis.size) if axis in axes else self.blocks(axis))
        for loop in loops:
            total = total * (self.value(loop.axis.size) if loop.axis in axes else self.steps(loop))
        looped = {loop.axis for loop in loops}
        for axis in axes:
            if axis not in self.grid and axis not in looped:
                total = total * self.value(axis.size)
        return total

    def tile(self, axes: tuple[Axis, ...], loops: tuple[Loop, ...]) -> Number:
        """Elements of one block's tile of a node."""
        looped = {loop.axis: self.value(loop.tile) for loop in loops}
        return math.prod(self.grid.get(a, looped.get(a, self.value(a.size))) for a in axes)

    def count(
        self, root: Node, loops: tuple[Loop, ...], seen: set[tuple[Node, tuple[Loop, ...]]]
    ) -> None:
        varying = {loop.axis: n for n, loop in enumerate(loops)}
        memo: dict[Node, int] = {}

        def depth(node: Node) -> int:
            """How many of the loops a node must be computed inside: 0 for one that is hoisted out
            of all.
            """
            if node in memo:
                return memo[node]
            if isinstance(node, Carried):
                found = max(
                    (n + 1 for n, lp in enumerate(loops) if _carries(lp, node.accumulator)),
                    default=0,
                )
            else:
                below = node.index_nodes if isinstance(node, Load) else node.children
                found = max((depth(c) for c in below), default=0)
                own = (*node.axes_free, *(node.axes if isinstance(node, Reduce) else ()))
                found = max([found, *(varying[a] + 1 for a in own if a in varying)])
            memo[node] = found
            return found

        stack = [root]
        while stack:
            node = stack.pop()
            inside = loops[: depth(node)]
            if (node, inside) in seen:
                continue
            seen.add((node, inside))
            stack.extend(node.index_nodes if isinstance(node, Load) else self.operate(node, inside))
            self.widest = _maximum(self.widest, self.tile(node.axes_free, inside))
            if isinstance(node, Load):
                elements = self.executed(node.axes_free, inside)
                self.loaded = self.loaded + elements * width(node.tensor.dtype)
                whole = math.prod(self.value(s) for s in node.tensor.shape)
                once = math.prod(self.value(a.size) for a in node.axes_free)
                old, best = self.touched.get(node.tensor, 0), _minimum(whole, once)
                self.touched[node.tensor] = _maximum(old, best)
                if inside:
                    self.operands = self.operands + self.tile(node.axes_free, inside) * width(
                        node.tensor.dtype
                    )

    def operate(self, node: Node, inside: tuple[Loop, ...]) -> tuple[Node, ...]:
        """Counts a node's own arithmetic; returns the operands still to be visited."""
        if isinstance(node, Pointwise):
            cost = OPS[node.op].cost
            if node.sort == REAL or cost != "free":
                unit = "special" if cost == "special" else "other"
                elements = self.executed(node.axes_free, inside)
                self.add(unit, elements, 8 if cost == "slow" else 1)
        elif isinstance(node, Reduce):
            return self.combine(
                node.monoid, node.body, self.executed(node.body.axes_free, inside), node.precision
            )
        return node.children

    def combine(
        self, monoid: str, body: Node, elements: Number, precision: Any
    ) -> tuple[Node, ...]:
        """A reduction's own work: a product of two terms with axes of their own is a matrix
        product.
        """
        if monoid == "sum" and is_product(body):
            assert isinstance(body, Pointwise)
            self.add(("dot", precision.operand if precision else "float32"), elements, 2)
            return body.args
        self.add("other", elements, 1)
        return (body,)

    def add(self, unit: Any, elements: Number, each: int) -> None:
        self.arithmetic[unit] = self.arithmetic.get(unit, 0) + elements * each


def _carries(loop: Loop, accumulator: str) -> bool:
    """Whether the loop, or one that runs inside its steps, has an accumulator of this name."""
    inner = (a for q in loop.inner for a in q.accumulators)
    return any(a.name == accumulator for a in (*loop.accumulators, *inner))


def is_product(body: Node) -> bool:
    """Whether a summand is a product whose two factors each have an axis that the other lacks: what
    `tl.dot` computes.
    """
    if not (isinstance(body, Pointwise) and body.op == "mul" and body.sort == REAL):
        return False
    a, b = (set(arg.axes_free) for arg in body.args)
    return bool(a - b) and bool(b - a)


def _minimum(a: Number, b: Number) -> Number:
    if hasattr(a, "free_symbols") or hasattr(b, "free_symbols"):
        import sympy

        return sympy.Min(a, b)
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    import numpy as np

    return np.minimum(a, b)


def _maximum(a: Number, b: Number) -> Number:
    return -_minimum(-a, -b)


def forms(kernel: Kernel, sizes: Mapping[str, Number]) -> Form:
    """The closed forms of a kernel; `sizes` maps every size symbol to a number (or to a sympy
    symbol).
    """
    counter = _Counter(kernel, sizes)
    seen: set[tuple[Node, tuple[Loop, ...]]] = set()
    stored: Number = 0
    accumulated: Number = 0

    def store(stores: tuple[Store, ...], loops: tuple[Loop, ...]) -> None:
        nonlocal stored
        for one in stores:
            counter.count(one.value, loops, seen)
            axes = tuple(dict.fromkeys(a for index in one.index for a in index.axes_free))
            stored = stored + counter.executed(axes, loops) * width(one.tensor.dtype)

    def loop_through(loops: tuple[Loop, ...], around: tuple[Loop, ...]) -> None:
        nonlocal accumulated
        for loop in loops:
            here = (*around, loop)
            loop_through(loop.inner, here)
            for acc in loop.accumulators:
                elements = counter.executed((*acc.axes, loop.axis), here)
                for operand in counter.combine(acc.monoid, acc.summand, elements, acc.precision):
                    counter.count(operand, here, seen)
                if acc.rescale is not None:
                    counter.count(acc.rescale, here, seen)
                    counter.add("other", counter.executed(acc.axes, here), 1)
                accumulated = accumulated + counter.tile(acc.axes, here)
            store(loop.stores, here)

    loop_through(kernel.loops, ())
    store(kernel.stores, ())
    compulsory: Number = 0
    for tensor, elements in counter.touched.items():
        compulsory = compulsory + elements * width(tensor.dtype)
    steps: Number = 0
    for loop in kernel.loops:
        shared = counter.value(loop.split.size) if loop.split is not None else 1
        steps = steps + ceil_div(counter.steps(loop), shared)
    return Form(counter.all_blocks(), steps, counter.loaded, compulsory, stored, counter.arithmetic,
                accumulated, counter.operands, counter.widest)  # fmt: skip
