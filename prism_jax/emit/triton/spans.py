"""What the axes of a kernel become in a block: scalars or tile dimensions, how wide, and in which
order.

In: a kernel with numbers for sizes, and how products are to be computed. Out: a `Layout`: for
every grid axis, loop and held axis its `Dimension`, and for every sum of products whether it is a
`tl.dot`.

Invariants: a dimension's width is a power of two, at least what `tl.dot` needs where it takes part
in one; all values of a kernel have their dimensions in one order, chosen so that products need no
transposes of computed values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from prism_jax.emit.triton import scales
from prism_jax.emit.triton.precision import dot_precision
from prism_jax.ir.nodes import REAL, Axis, Load, Node, Reduce, Store
from prism_jax.ir.product import Sides, factors, sides
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, Kernel, Loop

__all__ = ["Dimension", "Key", "Layout", "lay_out", "power_of_two"]

Key: TypeAlias = tuple[str, str]
"""("grid" | "held" | "loop0", ..., axis name)."""

Where: TypeAlias = Mapping[Axis, Key]
"""The dimension that each axis is at some place; axes not mentioned are held."""

DOT_MINIMUM = 16
"""Lanes of each side of a product."""

WARP_GROUP_ROWS = 64


def power_of_two(n: int) -> int:
    """The least power of two that is at least `n`."""
    return 1 << max(0, n - 1).bit_length()


@dataclass
class Dimension:
    """An axis in a block: `tile` elements of it, in `width` lanes (1: a scalar, no tile
    dimension).
    """

    key: Key
    axis: Axis
    tile: int
    width: int

    @property
    def size(self) -> int:
        return int(self.axis.size)

    @property
    def count(self) -> int:
        """Tiles along the axis."""
        return -(-self.size // self.tile)

    @property
    def ragged(self) -> bool:
        """Whether some lane of some tile is no element of the axis."""
        return self.width > self.tile or self.size % self.tile != 0


@dataclass
class Layout:
    """See the module. `products` says for each sum of products how it is computed: None is not a
    `tl.dot`. `operands` are the loads that are, as they are, operands of a `tl.dot` of few rows.
    `takers`: see `scales`.
    """

    dimensions: dict[Key, Dimension] = field(default_factory=dict[Key, Dimension])
    order: dict[Key, int] = field(default_factory=dict[Key, int])
    products: dict[tuple[object, tuple[Key, ...]], Sides | None] = field(
        default_factory=dict[tuple[object, tuple[Key, ...]], "Sides | None"]
    )
    operands: frozenset[Node] = frozenset()
    takers: Mapping[Node, frozenset[Axis]] = field(default_factory=dict[Node, frozenset[Axis]])

    def held(self, axis: Axis) -> Dimension:
        """The dimension of an axis that a block has whole."""
        key = ("held", axis.name)
        if key not in self.dimensions:
            size = int(axis.size)
            self.dimensions[key] = Dimension(key, axis, size, power_of_two(size))
        return self.dimensions[key]

    def at(self, axis: Axis, where: Where) -> Dimension:
        """The dimension that `axis` is at a place."""
        key = where.get(axis)
        return self.dimensions[key] if key is not None else self.held(axis)

    def site(
        self, what: object, axes: Sequence[Axis], where: Where
    ) -> tuple[object, tuple[Key, ...]]:
        """The key of a sum of products in `products`: the same node may occur at several places."""
        return what, tuple(self.at(a, where).key for a in sorted(axes))


def lay_out(
    kernel: Kernel, compute: str, products: str, *, exp2: bool = False, cut: bool = False
) -> Layout:
    """The layout of a kernel, by choices of its schedule. `products`: "dot" where the matrix unit
    can serve, or "mulsum" everywhere.
    """
    planner = _Planner(kernel, compute, products)
    if exp2 and compute == "float32":
        planner.layout.takers = scales.takers(kernel, cut=cut)
    return planner.run()


@dataclass
class _Product:
    """A sum of products that will be a `tl.dot`, with what decides the order of dimensions."""

    found: Sides
    where: Where
    stored: bool
    operand: str  # dtype of the operands that are used as they are; "" if all are rounded first


def _lanes(dims: Sequence[Dimension]) -> int:
    return math.prod(dim.width for dim in dims)


class _Planner:
    def __init__(self, kernel: Kernel, compute: str, products: str) -> None:
        self.kernel, self.compute, self.wanted = kernel, compute, products
        self.layout = Layout()
        self.dots: list[_Product] = []
        self.depth = {
            inside[loop.axis]: sum(key[0].startswith("loop") for key in inside.values())
            for loop, inside in self.loops({})
        }

    def run(self) -> Layout:
        grid: dict[Axis, Key] = {}
        for g in self.kernel.grid:
            key = ("grid", g.axis.name)
            tile = min(int(g.tile), int(g.axis.size))
            self.layout.dimensions[key] = Dimension(key, g.axis, tile, power_of_two(tile))
            grid[g.axis] = key
        places = list(self._places(grid))
        for where, root, accumulator in places:
            if accumulator is not None:
                self._consider(accumulator, root, where)
            self._visit(root, where)
        for store, where in self._stores(grid):
            for index in store.index:
                for axis in index.axes_free:
                    self.layout.at(axis, where)
        for dot in self.dots:
            self._widen(dot)
        self._even()
        self._rank(grid)
        few = [dot for dot in self.dots if self._rows(dot) < WARP_GROUP_ROWS]
        sides = ((side, dot.operand) for dot in few for side in (dot.found.left, dot.found.right))
        self.layout.operands = frozenset(
            node
            for side, operand in sides
            for node in side
            if len(side) == 1 and isinstance(node, Load) and node.tensor.dtype == operand
        )
        return self.layout

    def _rows(self, dot: _Product) -> int:
        """Lanes of the side whose dimensions come first."""
        order = self.layout.order
        m, n = ([self.layout.at(a, dot.where) for a in axes] for axes in (dot.found.m, dot.found.n))
        first = min((m, n), key=lambda dims: min(order[dim.key] for dim in dims))
        return _lanes(first)

    def loops(self, where: Where) -> Iterator[tuple[Loop, dict[Axis, Key]]]:
        """Every loop with the places inside it, numbered as in `all_loops`."""
        number = 0

        def below(loops: Sequence[Loop], where: Where) -> Iterator[tuple[Loop, dict[Axis, Key]]]:
            nonlocal number
            for loop in loops:
                inside = {**where, loop.axis: (f"loop{number}", loop.axis.name)}
                number += 1
                yield loop, inside
                yield from below(loop.inner, inside)

        yield from below(self.kernel.loops, where)

    def _places(self, grid: Where) -> Iterator[tuple[Where, Node, Accumulator | None]]:
        for loop, inside in self.loops(grid):
            key = inside[loop.axis]
            tile = min(int(loop.tile), int(loop.axis.size))
            self.layout.dimensions[key] = Dimension(key, loop.axis, tile, power_of_two(tile))
        for loop, inside in self.loops(grid):
            for accumulator in loop.accumulators:
                for axis in accumulator.axes:
                    self.layout.at(axis, inside)
                yield inside, accumulator.summand, accumulator
                if accumulator.rescale is not None:
                    yield inside, accumulator.rescale, None
            for store in loop.stores:
                yield inside, store.value, None
        for store in self.kernel.stores:
            yield grid, store.value, None

    def _stores(self, grid: Where) -> Iterator[tuple[Store, Where]]:
        for loop, inside in self.loops(grid):
            for store in loop.stores:
                yield store, inside
        for store in self.kernel.stores:
            yield store, grid

    def _visit(self, root: Node, where: Where) -> None:
        """Notes every axis and every sum of products below `root`."""
        seen: set[tuple[Node, tuple[tuple[Axis, Key], ...]]] = set()
        stack: list[tuple[Node, Where]] = [(root, where)]
        while stack:
            node, here = stack.pop()
            here = {a: k for a, k in here.items() if a in node.axes_free}
            mark = (node, tuple(sorted(here.items())))
            if mark in seen:
                continue
            seen.add(mark)
            for axis in node.axes_free:
                self.layout.at(axis, here)
            if isinstance(node, Reduce):
                here = {a: k for a, k in here.items() if a not in node.axes}
                for axis in node.axes:
                    self.layout.held(axis)
                if node.monoid == "sum":
                    self._consider(node, node.body, here)
            below = (*node.index_nodes, *node.children) if isinstance(node, Load) else node.children
            stack.extend((child, here) for child in below)

    def _consider(self, what: Accumulator | Reduce, body: Node, where: Where) -> None:
        """Decides how a sum of products is computed."""
        layout = self.layout
        if isinstance(what, Accumulator):
            summed = [a for a in where if a not in what.axes and where[a][0].startswith("loop")]
            summed = [a for a in summed if a in body.axes_free]
        else:
            summed = list(what.axes)
        site = layout.site(what, body.axes_free, where)
        if what.monoid != "sum" or site in layout.products:
            return
        layout.products[site] = None
        scalars = frozenset(a for a in body.axes_free if layout.at(a, where).width == 1)
        found = sides(factors(body), frozenset(summed) - scalars, scalars)
        if found is None or body.sort != REAL or self.wanted == "mulsum":
            return
        allowed = dot_precision(what.precision, self.compute)
        if allowed is None:
            return
        found = self._placed(found, where, scalars)
        layout.products[site] = found
        operand = "" if allowed.input_precision == "tf32" else allowed.operand
        self.dots.append(_Product(found, where, isinstance(what, Accumulator), operand))

    def _placed(self, found: Sides, where: Where, scalars: frozenset[Axis]) -> Sides:
        """The product with its scales where they cost least."""
        layout = self.layout

        def work(axes: Sequence[Axis]) -> tuple[int, int]:
            dims = [layout.at(a, where) for a in axes]
            return max((self.depth.get(d.key, 0) for d in dims), default=0), _lanes(dims)

        found = scales.placed(found, scalars, work)
        return scales.scaled(found, scalars, work)

    def _widen(self, dot: _Product) -> None:
        """Gives each side of a product the lanes that `tl.dot` needs; the new lanes are masked."""
        for group in (dot.found.m, dot.found.k, dot.found.n):
            dims = [self.layout.at(a, dot.where) for a in group]
            lanes = 1
            for dim in dims:
                lanes *= dim.width
            if lanes < DOT_MINIMUM:
                dims[-1].width *= DOT_MINIMUM // lanes

    def _even(self) -> None:
        """Gives products that share an operand equally many columns, where the narrow one's are
        held.

        Triton 3.6 reads shared memory out of bounds, or wrong values, where one tile of 64 rows or
        more is the left operand of two products of different widths (seen on an H100).
        """
        together: dict[tuple[Node, ...], list[list[Dimension]]] = {}
        for dot in self.dots:
            found = dot.found
            for shared, rows, columns in (
                (found.left, found.m, found.n),
                (found.right, found.n, found.m),
            ):
                if _lanes([self.layout.at(a, dot.where) for a in rows]) >= WARP_GROUP_ROWS:
                    own = [self.layout.at(a, dot.where) for a in columns]
                    together.setdefault(shared, []).append(own)
        for groups in together.values():
            widest = max(_lanes(dims) for dims in groups)
            for dims in groups:
                if _lanes(dims) < widest and dims[-1].key[0] == "held":
                    dims[-1].width *= widest // _lanes(dims)

    # --- the order of dimensions ----------------------------------------------------------------

    def _rank(self, grid: Where) -> None:
        """Output order where that is possible: rows before columns, and computed operands as they
        are.
        """
        layout = self.layout
        base: dict[Key, None] = {}
        for store, where in self._stores(grid):
            for index in store.index:
                base.update(dict.fromkeys(layout.at(a, where).key for a in index.axes_free))
        for where, root, _ in self._places(grid):
            for node in walk([root]):
                if isinstance(node, Load):
                    for index in node.index:
                        base.update(dict.fromkeys(layout.at(a, where).key for a in index.axes_free))
        base.update(dict.fromkeys(layout.dimensions))
        after: dict[Key, set[Key]] = {key: set() for key in base}  # key -> keys that come later
        for dot in sorted(self.dots, key=lambda d: not d.stored):
            options = [dot.found, dot.found.swapped]
            ranked = sorted(options, key=lambda s: self._cost(s, dot.where, list(base)))
            for option in ranked:
                edges = self._edges(option, dot.where)
                if all(not _reaches(after, b, a) for a, b in edges):
                    for a, b in edges:
                        after[a].add(b)
                    break
        order: list[Key] = []
        left = list(base)
        while left:
            free = next(
                k for k in left if not any(k in after[other] for other in left if other != k)
            )
            order.append(free)
            left.remove(free)
        layout.order.update({key: n for n, key in enumerate(order)})

    def _edges(self, found: Sides, where: Where) -> list[tuple[Key, Key]]:
        """Pairs of dimensions whose order matters: rows before columns, computed operands in
        place.
        """

        def keys(axes: Sequence[Axis]) -> list[Key]:
            return [self.layout.at(a, where).key for a in axes]

        batch, m, k, n = keys(found.batch), keys(found.m), keys(found.k), keys(found.n)
        edges = [(a, b) for a in batch for b in (*m, *k, *n)]
        edges += [(a, b) for a in m for b in n]
        if not _loaded(found.left):
            edges += [(a, b) for a in m for b in k]
        if not _loaded(found.right):
            edges += [(a, b) for a in k for b in n]
        return [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]

    def _cost(self, found: Sides, where: Where, base: list[Key]) -> tuple[int, int, int]:
        """A computed operand belongs on the left (it stays in registers); then the outputs' own
        order.
        """
        computed_right = int(not _loaded(found.right) and _loaded(found.left))
        rows = min(base.index(self.layout.at(a, where).key) for a in found.m)
        columns = min(base.index(self.layout.at(a, where).key) for a in found.n)
        return computed_right, int(rows > columns), 0


def _loaded(side: Sequence[Node]) -> bool:
    return len(side) == 1 and isinstance(side[0], Load)


def _reaches(after: Mapping[Key, set[Key]], start: Key, goal: Key) -> bool:
    stack, seen = [start], set[Key]()
    while stack:
        key = stack.pop()
        if key == goal:
            return True
        if key not in seen:
            seen.add(key)
            stack.extend(after[key])
    return False
