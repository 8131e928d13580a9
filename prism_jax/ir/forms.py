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

from collections.abc import Callable, Mapping
from typing import Any

from prism_jax.ir.counts import Number, ceil_div, certain_loads, distinct, maximum, width
from prism_jax.ir.form import Form
from prism_jax.ir.monomials import Monomial, Total, monomial
from prism_jax.ir.nodes import (
    REAL,
    Axis,
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
from prism_jax.ir.program import contents
from prism_jax.ir.sgraph import Accumulator, Kernel, Loop

__all__ = ["Form", "forms"]

Extent = Callable[[Axis], Number]
Each = Callable[[Tensor], Number]
Least = Callable[[Load], Number]
Scope = frozenset[Axis]
"""Axes of the grid or of a loop that a reduction inside the step binds again."""

NOTHING: Scope = frozenset()


class _Counter:
    def __init__(
        self, kernel: Kernel, sizes: Mapping[str, Number], extent: Extent | None,
        each: Each | None, least: Least | None,
    ) -> None:  # fmt: skip
        self.sizes = sizes
        self._extent, self._each, self._least = extent, each, least
        self._blocks: dict[Axis, Number] = {}
        self._executed: dict[object, Monomial] = {}
        self._tiles: dict[object, Monomial] = {}
        self._held: dict[tuple[int, ...], Monomial] = {}
        self._names: dict[int, frozenset[str]] = {}
        self.grid = {g.axis: self.value(g.tile) for g in kernel.grid}
        self.split = next((q for q in kernel.all_loops if q.split is not None), None)
        self.bindable = frozenset(self.grid) | {loop.axis for loop in kernel.all_loops}
        self.arithmetic: dict[Any, Total] = {}
        self.loaded, self.stored, self.operands, self.accumulated = (Total() for _ in range(4))
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
        found = self._blocks.get(axis)
        if found is None:
            found = self._blocks[axis] = ceil_div(self.extent(axis), self.grid[axis])
        return found

    def all_blocks(self) -> Number:
        return monomial(self.blocks(a) for a in self.grid).number()

    def widest(self) -> Number:
        """Elements of the largest intermediate tile."""
        found: Number = 0
        for tile in sorted(self._held.values(), key=lambda m: (len(m.columns), m.places)):
            found = maximum(found, tile.number())
        return found

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
    ) -> Monomial:  # fmt: skip
        """How many elements of a node with these free axes are computed by all blocks together, if
        it depends on the loops `inside` and is needed within the loops `around`.
        """
        key = (axes, id(inside[-1]) if inside else 0, id(around[-1]) if around else 0, scope)
        found = self._executed.get(key)
        if found is None:
            found = monomial(self._factors(axes, inside, around, scope))
            self._executed[key] = found
        return found

    def _factors(
        self, axes: tuple[Axis, ...], inside: tuple[Loop, ...], around: tuple[Loop, ...],
        scope: Scope,
    ) -> list[Number]:  # fmt: skip
        found: list[Number] = []
        looped = {loop.axis: loop for loop in inside}
        split = next((loop for loop in around if loop is self.split), None)
        for axis in self.grid:
            if split is not None and axis == split.split:
                if all(
                    loop is not split for loop in inside
                ):  # else its blocks share the loop's steps
                    found.append(self.runs(split))
            elif axis in axes and axis not in scope and axis not in looped:
                found.append(self.extent(axis))
            else:
                found.append(self.blocks(axis))
        for axis, loop in looped.items():
            bound = axis in axes and axis not in scope
            found.append(self.extent(axis) if bound else self.steps(loop))
        for axis in axes:
            if axis in scope or (axis not in self.grid and axis not in looped):
                found.append(self.extent(axis))
        return found

    def tile(self, axes: tuple[Axis, ...], loops: tuple[Loop, ...], scope: Scope) -> Monomial:
        """Elements of one block's tile of a node."""
        key = (axes, id(loops[-1]) if loops else 0, scope)
        found = self._tiles.get(key)
        if found is None:
            cut = self.grid | {loop.axis: self.value(loop.tile) for loop in loops}
            found = self._tiles[key] = monomial(
                cut[axis] if axis in cut and axis not in scope else self.extent(axis)
                for axis in axes
            )
        return found

    def count(self, root: Node, loops: tuple[Loop, ...], scope: Scope = NOTHING) -> None:
        """Counts a term that is needed in every step of these loops, and all that it is made of."""
        stack = [(root, scope)]
        while stack:
            node, scope = stack.pop()
            if scope:
                scope = scope.intersection(node.axes_free)
            inside = loops[: self._depth(node, scope, loops)]
            innermost = id(inside[-1]) if inside else 0  # a loop stands for its outer ones
            key = (node, innermost, scope)
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
            held = self.tile(node.axes_free, inside, scope)
            same = self._held.get(held.places)
            if same is None:
                self._held[held.places] = held
            elif same is not held:
                factor = maximum(same.factor, held.factor)
                self._held[held.places] = Monomial(factor, held.columns, held.places)

    def _depth(self, node: Node, scope: Scope, loops: tuple[Loop, ...]) -> int:
        """How many of the loops a node must be computed inside: 0 for one that is hoisted out of
        all. What is below it depends on no other loop, since what a reduction binds is in scope.
        """
        axes = node.axes_free
        carried = contents(node).carried if loops else ()
        for n in range(len(loops), 0, -1):
            loop = loops[n - 1]
            if loop.axis in axes and loop.axis not in scope:
                return n
            if carried:
                names = self._carried(loop)
                if any(one.accumulator in names for one in carried):
                    return n
        return 0

    def _carried(self, loop: Loop) -> frozenset[str]:
        """The accumulators of a loop, and of those that run inside its steps."""
        found = self._names.get(id(loop))
        if found is None:
            inner = (a for q in loop.inner for a in q.accumulators)
            found = frozenset(a.name for a in (*loop.accumulators, *inner))
            self._names[id(loop)] = found
        return found

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
        self.loaded.add(elements, each)
        least = self._least
        if any(isinstance(axis.size, str) for axis in node.axes_free):
            least = None  # parts are a number of this kernel
        positions = distinct(node, self.extent) if least is None else least(node)
        for known in (self.touched, *((self.certain,) if node in self.unmasked else ())):
            old = known.get(node.tensor)
            known[node.tensor] = positions if old is None else maximum(old, positions)
        if inside:
            self.operands.add(self.tile(node.axes_free, inside, scope), each)

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

            def executed(axes: tuple[Axis, ...]) -> Monomial:
                return self.executed(axes, inside, around, inner)

            return self.combine(node.monoid, node.body, node.axes, executed, node.precision)
        return node.children

    def combine(
        self, monoid: str, body: Node, summed: tuple[Axis, ...],
        executed: Callable[[tuple[Axis, ...]], Monomial], precision: Any,
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

    def store(self, stores: tuple[Store, ...], loops: tuple[Loop, ...]) -> None:
        """Counts stores that are made in every step of these loops."""
        for one in stores:
            self.count(one.value, loops)
            axes = _union(*(index.axes_free for index in one.index))
            each = self.bytes_of(one.tensor)
            self.stored.add(self.executed(axes, loops, loops), each)

    def loop_through(self, loops: tuple[Loop, ...], around: tuple[Loop, ...]) -> None:
        """Counts loops that run inside the steps of others."""
        for loop in loops:
            here = (*around, loop)
            self.loop_through(loop.inner, here)
            for acc in loop.accumulators:
                self._accumulate(acc, loop, here)
            self.store(loop.stores, here)

    def _accumulate(self, acc: Accumulator, loop: Loop, here: tuple[Loop, ...]) -> None:
        def executed(axes: tuple[Axis, ...]) -> Monomial:
            return self.executed(axes, here, here)

        own = (loop.axis,)
        for operand in self.combine(acc.monoid, acc.summand, own, executed, acc.precision):
            self.count(operand, here)
        if acc.rescale is not None:
            self.count(acc.rescale, here)
            self.add("other", self.executed(acc.axes, here, here), 1)
        self.accumulated.add(self.tile(acc.axes, here, NOTHING))

    def add(self, unit: Any, elements: Monomial, each: int) -> None:
        if unit not in self.arithmetic:
            self.arithmetic[unit] = Total()
        self.arithmetic[unit].add(elements, each)


def _union(*groups: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(dict.fromkeys(axis for group in groups for axis in group))


def forms(
    kernel: Kernel,
    sizes: Mapping[str, Number],
    extent: Extent | None = None,
    each: Each | None = None,
    least: Least | None = None,
) -> Form:
    """The closed forms of a kernel; `sizes` maps every size symbol to a number (or to a sympy
    symbol). `extent` and `each` stand in for the sizes of axes and the bytes of a tensor's element
    that the kernel states itself, `least` for `counts.distinct`.
    """
    counter = _Counter(kernel, sizes, extent, each, least)
    counter.store(kernel.stores, ())  # first: what an epilogue needs, every block computes
    counter.loop_through(kernel.loops, ())
    compulsory, certain = counter.once(counter.touched), counter.once(counter.certain)
    steps: Number = 0
    for loop in kernel.loops:
        shared = counter.value(loop.split.size) if loop.split is not None else 1
        steps = steps + ceil_div(counter.steps(loop), shared)
    masked = any(  # a summand selects by a condition over the values of axes
        contents(a.summand).positional for loop in kernel.all_loops for a in loop.accumulators
    )
    return Form(
        blocks=counter.all_blocks(),
        steps=steps,
        loaded=counter.loaded.number(),
        compulsory=compulsory,
        stored=counter.stored.number(),
        arithmetic={unit: total.number() for unit, total in counter.arithmetic.items()},
        accumulators=counter.accumulated.number(),
        operands=counter.operands.number(),
        widest=counter.widest(),
        certain=certain,
        masked=masked,
    )
