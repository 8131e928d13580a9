"""Closed forms of a kernel: blocks, bytes, arithmetic, footprint, as functions of its size symbols.

The same code runs on four kinds of numbers: Python integers, NumPy arrays (thousands of size
assignments in one call), sympy expressions (to print a form, or to reason about it) and the
recorded numbers of a tape (to repeat it at other sizes). Counts are exact: a ragged last tile
counts what it really holds, so an instrumented run of the instantiated sGraph counts the same bytes
and operations.

What is counted: a term is computed once per block and step of the loops that it depends on; a
matrix product (`ir.product`) is two operations per multiply-add, any other reduction one per
element of its body, an accumulator's rescaling one per element and step. Axes that a reduction or
a loop binds again inside the grid's own axis range over all their values, in every block.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prism_jax.ir.counts import Number, ceil_div, certain_loads, distinct, maximum, width
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Carried,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Size,
    Store,
    Tensor,
)
from prism_jax.ir.ops import OPS
from prism_jax.ir.product import product_of
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Kernel, Loop


@dataclass(frozen=True)
class Form:
    """Counts for one launch. Bytes are bytes; `arithmetic` counts operations by unit.

    `loaded` is what all blocks read together (reloads by other blocks included), `compulsory` what
    is read at least once, `certain` what of this no mask over the values of axes can spare. Units:
    ("dot", operand dtype) multiply-adds x 2; "other"; "special". `accumulators` (elements),
    `operands` (bytes loaded in one step) and `widest` (elements of the largest intermediate tile)
    are one block's footprint. `masked`: a loop has an affine mask, so that an emitter may skip
    steps: then `loaded` and `arithmetic` are no lower bounds.
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
    certain: Number = 0
    masked: bool = False

    def map(self, change: Callable[[Number], Number]) -> Form:
        """The form with every number changed in the same way."""
        return Form(
            blocks=change(self.blocks),
            steps=change(self.steps),
            loaded=change(self.loaded),
            compulsory=change(self.compulsory),
            stored=change(self.stored),
            arithmetic={unit: change(count) for unit, count in self.arithmetic.items()},
            accumulators=change(self.accumulators),
            operands=change(self.operands),
            widest=change(self.widest),
            certain=change(self.certain),
            masked=self.masked,
        )


Extent = Callable[[Axis], Number]
Each = Callable[[Tensor], Number]
Scope = frozenset[Axis]
"""Axes of the grid or of a loop that a reduction inside the step binds again."""

NOTHING: Scope = frozenset()


class _Counter:
    def __init__(
        self, kernel: Kernel, sizes: Mapping[str, Number], extent: Extent | None, each: Each | None
    ) -> None:
        self.sizes = sizes
        self._extent, self._each = extent, each
        self._executed: dict[object, Number] = {}
        self.grid = {g.axis: self.value(g.tile) for g in kernel.grid}
        self.split = next((q for q in kernel.all_loops if q.split is not None), None)
        self.bindable = frozenset(self.grid) | {loop.axis for loop in kernel.all_loops}
        self.arithmetic: dict[Any, Number] = {}
        self.loaded: Number = 0
        self.operands: Number = 0
        self.widest: Number = 0
        self.touched: dict[Tensor, Number] = {}
        self.certain: dict[Tensor, Number] = {}
        self.unmasked = frozenset(certain_loads(kernel.roots))
        self.seen: set[tuple[Node, int, Scope]] = set()

    def value(self, size: Size) -> Number:
        return self.sizes[size] if isinstance(size, str) else size

    def extent(self, axis: Axis) -> Number:
        """How many values an axis has."""
        if self._extent is None or isinstance(axis.size, str):
            return self.value(axis.size)
        return self._extent(axis)

    def blocks(self, axis: Axis) -> Number:
        return ceil_div(self.extent(axis), self.grid[axis])

    def all_blocks(self) -> Number:
        return math.prod(self.blocks(a) for a in self.grid)

    def steps(self, loop: Loop) -> Number:
        return ceil_div(self.extent(loop.axis), self.value(loop.tile))

    def runs(self, loop: Loop) -> Number:
        """The blocks of a split loop that have at least one step."""
        assert loop.split is not None
        steps = self.steps(loop)
        return ceil_div(steps, ceil_div(steps, self.value(loop.split.size)))

    def executed(
        self, axes: tuple[Axis, ...], inside: tuple[Loop, ...], around: tuple[Loop, ...] = (),
        scope: Scope = NOTHING,
    ) -> Number:  # fmt: skip
        """How many elements of a node with these free axes are computed by all blocks together, if
        it depends on the loops `inside` and is needed within the loops `around`.
        """
        key = (axes, id(inside[-1]) if inside else 0, id(around[-1]) if around else 0, scope)
        if key not in self._executed:
            self._executed[key] = self._multiply(axes, inside, around, scope)
        return self._executed[key]

    def _multiply(
        self, axes: tuple[Axis, ...], inside: tuple[Loop, ...], around: tuple[Loop, ...],
        scope: Scope,
    ) -> Number:  # fmt: skip
        total: Number = 1
        looped = {loop.axis: loop for loop in inside}
        split = next((loop for loop in around if loop is self.split), None)
        for axis in self.grid:
            if split is not None and axis == split.split:
                if all(
                    loop is not split for loop in inside
                ):  # else its blocks share the loop's steps
                    total = total * self.runs(split)
            elif axis in axes and axis not in scope and axis not in looped:
                total = total * self.extent(axis)
            else:
                total = total * self.blocks(axis)
        for axis, loop in looped.items():
            bound = axis in axes and axis not in scope
            total = total * (self.extent(axis) if bound else self.steps(loop))
        for axis in axes:
            if axis in scope or (axis not in self.grid and axis not in looped):
                total = total * self.extent(axis)
        return total

    def tile(self, axes: tuple[Axis, ...], loops: tuple[Loop, ...], scope: Scope) -> Number:
        """Elements of one block's tile of a node."""
        looped = {loop.axis: self.value(loop.tile) for loop in loops}
        total: Number = 1
        for axis in axes:
            part = None if axis in scope else looped.get(axis, self.grid.get(axis))
            total = total * (self.extent(axis) if part is None else part)
        return total

    def count(self, root: Node, loops: tuple[Loop, ...], scope: Scope = NOTHING) -> None:
        """Counts a term that is needed in every step of these loops, and all that it is made of."""
        memo: dict[tuple[Node, Scope], int] = {}

        def depth(node: Node, scope: Scope) -> int:
            """How many of the loops a node must be computed inside: 0 for one that is hoisted out
            of all.
            """
            key = (node, scope)
            if key in memo:
                return memo[key]
            if isinstance(node, Carried):
                found = max(
                    (n + 1 for n, lp in enumerate(loops) if _carries(lp, node.accumulator)),
                    default=0,
                )
            else:
                inner = self.within(node, scope)
                below = node.index_nodes if isinstance(node, Load) else node.children
                found = max((depth(c, inner) for c in below), default=0)
            for n, loop in enumerate(loops):
                if loop.axis in node.axes_free and loop.axis not in scope:
                    found = max(found, n + 1)
            memo[key] = found
            return found

        stack = [(root, scope)]
        while stack:
            node, scope = stack.pop()
            scope = scope.intersection(node.axes_free)
            inside = loops[: depth(node, scope)]
            key = (node, id(inside[-1]) if inside else 0, scope)  # a loop stands for its outer ones
            if key in self.seen:
                continue
            self.seen.add(key)
            if isinstance(node, Load):
                self.read(node, inside, loops, scope)
                below = node.index_nodes
            else:
                below = self.operate(node, inside, loops, scope)
            inner = self.within(node, scope)
            stack.extend((child, inner) for child in below)
            self.widest = maximum(self.widest, self.tile(node.axes_free, inside, scope))

    def within(self, node: Node, scope: Scope) -> Scope:
        """The scope of a node's operands."""
        if isinstance(node, Reduce):
            again = self.bindable.intersection(node.axes)
            return scope | again if again else scope
        return scope

    def read(
        self, node: Load, inside: tuple[Loop, ...], around: tuple[Loop, ...], scope: Scope
    ) -> None:
        each = self.bytes_of(node.tensor)
        elements = self.executed(node.axes_free, inside, around, scope)
        self.loaded = self.loaded + elements * each
        least = distinct(node, self.extent)
        for known in (self.touched, *((self.certain,) if node in self.unmasked else ())):
            old = known.get(node.tensor)
            known[node.tensor] = least if old is None else maximum(old, least)
        if inside:
            self.operands = self.operands + self.tile(node.axes_free, inside, scope) * each

    def once(self, elements: Mapping[Tensor, Number]) -> Number:
        """Bytes of so many elements of each tensor."""
        return sum((n * self.bytes_of(tensor) for tensor, n in elements.items()), 0)

    def bytes_of(self, tensor: Tensor) -> Number:
        """Bytes of one element of a tensor."""
        return width(tensor.dtype) if self._each is None else self._each(tensor)

    def operate(
        self, node: Node, inside: tuple[Loop, ...], around: tuple[Loop, ...], scope: Scope
    ) -> tuple[Node, ...]:
        """Counts a node's own arithmetic; returns the operands still to be visited."""
        if isinstance(node, Pointwise):
            cost = OPS[node.op].cost
            if node.sort == REAL or cost != "free":
                unit = "special" if cost == "special" else "other"
                elements = self.executed(node.axes_free, inside, around, scope)
                self.add(unit, elements, 8 if cost == "slow" else 1)
        elif isinstance(node, Reduce):
            inner = self.within(node, scope)

            def executed(axes: tuple[Axis, ...]) -> Number:
                return self.executed(axes, inside, around, inner)

            return self.combine(node.monoid, node.body, node.axes, executed, node.precision)
        return node.children

    def combine(
        self, monoid: str, body: Node, summed: tuple[Axis, ...],
        executed: Callable[[tuple[Axis, ...]], Number], precision: Any,
    ) -> tuple[Node, ...]:  # fmt: skip
        """A reduction's own work, and the terms that it is made of."""
        product = product_of(monoid, body, summed)
        if product is None:
            self.add("other", executed(_union(body.axes_free, summed)), 1)
            return (body,)
        every = _union(*(f.axes_free for f in (*product.left, *product.right)), summed)
        self.add(("dot", precision.operand if precision else "float32"), executed(every), 2)
        for side in (product.left, product.right):
            axes = side[0].axes_free
            for factor in side[1:]:
                axes = _union(axes, factor.axes_free)
                self.add("other", executed(axes), 1)
        kept = tuple(a for a in every if a not in summed)
        for factor in product.rest:
            kept = _union(kept, factor.axes_free)
            self.add("other", executed(kept), 1)
        return (*product.left, *product.right, *product.rest)

    def add(self, unit: Any, elements: Number, each: int) -> None:
        self.arithmetic[unit] = self.arithmetic.get(unit, 0) + elements * each


def _union(*groups: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(dict.fromkeys(axis for group in groups for axis in group))


def _carries(loop: Loop, accumulator: str) -> bool:
    """Whether the loop, or one that runs inside its steps, has an accumulator of this name."""
    inner = (a for q in loop.inner for a in q.accumulators)
    return any(a.name == accumulator for a in (*loop.accumulators, *inner))


def forms(
    kernel: Kernel,
    sizes: Mapping[str, Number],
    extent: Extent | None = None,
    each: Each | None = None,
) -> Form:
    """The closed forms of a kernel; `sizes` maps every size symbol to a number (or to a sympy
    symbol). `extent` and `each` stand in for the sizes of axes and the bytes of a tensor's element
    that the kernel states itself.
    """
    counter = _Counter(kernel, sizes, extent, each)
    stored: Number = 0
    accumulated: Number = 0

    def store(stores: tuple[Store, ...], loops: tuple[Loop, ...]) -> None:
        nonlocal stored
        for one in stores:
            counter.count(one.value, loops)
            axes = _union(*(index.axes_free for index in one.index))
            each = counter.bytes_of(one.tensor)
            stored = stored + counter.executed(axes, loops, loops) * each

    def loop_through(loops: tuple[Loop, ...], around: tuple[Loop, ...]) -> None:
        nonlocal accumulated
        for loop in loops:
            here = (*around, loop)
            loop_through(loop.inner, here)
            for acc in loop.accumulators:

                def executed(axes: tuple[Axis, ...], here: tuple[Loop, ...] = here) -> Number:
                    return counter.executed(axes, here, here)

                own = (loop.axis,)
                for operand in counter.combine(
                    acc.monoid, acc.summand, own, executed, acc.precision
                ):
                    counter.count(operand, here)
                if acc.rescale is not None:
                    counter.count(acc.rescale, here)
                    counter.add("other", counter.executed(acc.axes, here, here), 1)
                accumulated = accumulated + counter.tile(acc.axes, here, NOTHING)
            store(loop.stores, here)

    store(kernel.stores, ())  # first: what an epilogue needs, every block computes
    loop_through(kernel.loops, ())
    compulsory, certain = counter.once(counter.touched), counter.once(counter.certain)
    steps: Number = 0
    for loop in kernel.loops:
        shared = counter.value(loop.split.size) if loop.split is not None else 1
        steps = steps + ceil_div(counter.steps(loop), shared)
    masked = any(_masked(a.summand) for loop in kernel.all_loops for a in loop.accumulators)
    return Form(counter.all_blocks(), steps, counter.loaded, compulsory, stored, counter.arithmetic,
                accumulated, counter.operands, counter.widest, certain, masked)  # fmt: skip


def _masked(summand: Node) -> bool:
    """Whether a summand selects by a condition over the values of axes."""
    return any(isinstance(node, Iota) for node in walk([summand]))
