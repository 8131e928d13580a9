"""A program and an sGraph at small random sizes: substitution of sizes, through every index.

In: a program, an sGraph of the same inputs and outputs, a random generator. Out: both with small
numbers for sizes and tiles. Dimensions that must agree are found by union-find over the tensors'
dimensions and the axes that index them; an index that is a mixed-radix number (a merged or split
dimension) keeps being one. What does not survive shrinking (slices, windows, guards, axes that only
a constant ties to a tensor) keeps its real size.

>>> from prism_jax.ir.nodes import Load, Reduce, at
>>> i, k = Axis("i", 500), Axis("k", 700)
>>> row = Reduce("sum", (k,), Load(Tensor("x", (500, 700), "float32"), (at(i), at(k))))
>>> x, y = Tensor("x", (500, 700), "float32"), Tensor("y", (500,), "float32")
>>> program = Program("row", (x,), (Store(y, (at(i),), row),))
>>> pair = shrink(program, as_sgraph(program), np.random.default_rng(0))
>>> all(size < 8 for size in pair.program.inputs[0].shape)
True
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Size,
    Store,
    Tensor,
    Within,
    affine,
)
from prism_jax.ir.program import Program, walk
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph

Key: TypeAlias = tuple[str, str, Size]
"""("axis", name, size) or ("dim", tensor, number)."""


@dataclass(frozen=True)
class Shrunk:
    """The pair at small sizes. `symbols` gives a number to every tile."""

    program: Program
    sgraph: SGraph
    symbols: dict[str, int]
    sizes: tuple[tuple[str, int], ...]
    """What each axis became, by name."""


def as_sgraph(program: Program) -> SGraph:
    """The program as one library call."""
    call = LibraryCall(program.name, "xla", program.outputs)
    outputs = tuple(s.tensor for s in program.outputs)
    return SGraph(program.name, program.inputs, (call,), outputs, program.compute)


def shrink(
    program: Program,
    sgraph: SGraph,
    rng: np.random.Generator,
    keep_reduced: bool = False,
    largest: int = 6,
) -> Shrunk:
    """Both at small sizes; `keep_reduced` keeps the real size of every axis that is summed over."""
    classes = _Classes(program, sgraph)
    if keep_reduced:
        classes.keep_reduced()
    sizes = classes.draw(rng, largest)
    table = _Table(classes, sizes)
    for node in sgraph.nodes:
        if isinstance(node, Kernel):
            for g in node.grid:
                table.tile(g.tile, 1 if g.axis in _splits(node) else table.some(g.axis, rng))
            for loop in node.all_loops:
                table.tile(loop.tile, table.some(loop.axis, rng))
    small = Program(
        program.name,
        tuple(map(table.tensor, program.inputs)),
        tuple(map(table.store, program.outputs)),
        program.compute,
    )
    axes = sorted({(k[1], table.size(k)) for k in classes.parent if k[0] == "axis"})
    return Shrunk(small, table.sgraph(sgraph), table.tiles, tuple(axes))


def _splits(kernel: Kernel) -> set[Axis]:
    return {loop.split for loop in kernel.all_loops if loop.split is not None}


class _Classes:
    """Dimensions and axes that have one size, those that are products, and those that stay."""

    def __init__(self, program: Program, sgraph: SGraph) -> None:
        self.parent: dict[Key, Key] = {}
        self.real: dict[Key, int | None] = {}
        self.products: dict[Key, tuple[Key, ...]] = {}
        self.fixed: set[Key] = set()
        self.reduced: set[Key] = set()
        self.touched: set[Key] = set()
        self.looped: set[Key] = set()
        for tensor in (*program.inputs, *sgraph.inputs):
            self.dims(tensor)
        for store, tensor in zip(program.outputs, sgraph.outputs, strict=True):
            for a, b in zip(self.dims(store.tensor), self.dims(tensor), strict=True):
                self.join(a, b)
        stores = [*program.outputs]
        roots: list[Node] = []
        for node in sgraph.nodes:
            if isinstance(node, LibraryCall):
                stores += node.stores
                continue
            stores += node.all_stores
            roots += node.roots
            for g in node.grid:
                self.axis(g.axis)
            for loop in node.all_loops:
                self.reduced.add(self.axis(loop.axis))
                self.looped.add(self.axis(loop.axis))
        for store in stores:
            self.indexed(store.tensor, store.index)
        for node in walk([*roots, *(s.value for s in stores)]):
            self.node(node)

    def node(self, node: Node) -> None:
        if isinstance(node, Load):
            self.indexed(node.tensor, node.index)
            for guard in node.guard:
                self.keep(guard.index)
        elif isinstance(node, Reduce):
            self.reduced |= {self.axis(a) for a in node.axes}
        elif isinstance(node, Iota):
            self.axis(node.axis)

    def dims(self, tensor: Tensor) -> list[Key]:
        return [self.key(("dim", f"{tensor.name}.{n}", ""), s) for n, s in enumerate(tensor.shape)]

    def axis(self, axis: Axis) -> Key:
        return self.key(("axis", axis.name, axis.size), axis.size)

    def key(self, key: Key, size: Size) -> Key:
        if key not in self.parent:
            self.parent[key] = key
            self.real[key] = size if isinstance(size, int) else None
        return key

    def find(self, key: Key) -> Key:
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def join(self, a: Key, b: Key) -> None:
        a, b = sorted((self.find(a), self.find(b)), key=str)
        if a != b:
            self.parent[b] = a
            if self.real[a] != self.real[b]:
                self.fixed.add(a)

    def keep(self, index: Index) -> None:
        self.fixed |= {self.axis(t) for t, _ in index.terms if isinstance(t, Axis)}

    def keep_reduced(self) -> None:
        self.fixed |= self.reduced

    def indexed(self, tensor: Tensor, index: tuple[Index, ...]) -> None:
        for dim, where in zip(self.dims(tensor), index, strict=True):
            self.touched |= {self.axis(t) for t, _ in where.terms if isinstance(t, Axis)}
            axis = where.axis
            if (axis is not None and axis.size == self.real[dim]) or (
                axis is not None and isinstance(axis.size, str)
            ):
                self.join(dim, self.axis(axis))
            elif _is_gather(where):
                continue
            else:
                parts = self.radix(where, self.real[dim])
                if parts is None:
                    self.fixed.add(dim)
                    self.keep(where)
                elif self.products.setdefault(dim, parts) != parts:
                    self.fixed |= {dim, *parts, *self.products[dim]}

    def radix(self, index: Index, size: int | None) -> tuple[Key, ...] | None:
        """The axes, innermost first, of which the index is the mixed-radix number."""
        if index.offset or not all(isinstance(t, Axis) for t, _ in index.terms):
            return None
        unit, parts = 1, list[Key]()
        for term, coefficient in sorted(index.terms, key=lambda tc: (tc[1], str(tc[0]))):
            if not isinstance(term, Axis) or not isinstance(term.size, int) or coefficient != unit:
                return None
            unit *= term.size
            parts.append(self.axis(term))
        return tuple(parts) if unit == size and parts else None

    def draw(self, rng: np.random.Generator, largest: int) -> dict[Key, int]:
        """A size for every class."""
        fixed = {self.find(k) for k in self.fixed}
        fixed |= {self.find(k) for k in self.reduced - self.touched}
        looped = {self.find(k) for k in self.looped}
        products: dict[Key, tuple[Key, ...]] = {}
        for dim, parts in sorted(self.products.items(), key=str):
            root = self.find(dim)
            mine = tuple(self.find(p) for p in parts)
            if products.setdefault(root, mine) != mine or root in mine:
                fixed |= {root, *mine, *products[root]}
        changed = True
        while changed:  # a product of what stays, and the parts of what stays, stay
            changed = False
            for root, parts in products.items():
                if {root, *parts} & fixed and not {root, *parts} <= fixed:
                    fixed |= {root, *parts}
                    changed = True
        sizes: dict[Key, int] = {}
        for root in sorted({self.find(k) for k in self.parent}, key=str):
            real = self.real[root]
            if root in fixed and real is not None:
                sizes[root] = real
            elif root not in products:
                looping = (3,) if largest < 4 else (4, 5, 5, largest)
                size = int(rng.choice(looping) if root in looped else rng.integers(2, 4))
                sizes[root] = size if real is None or real > 1 else real
        for root in sorted(products, key=str):
            self._product(root, products, sizes)
        return sizes

    def _product(
        self, root: Key, products: dict[Key, tuple[Key, ...]], sizes: dict[Key, int]
    ) -> int:
        if root not in sizes:
            sizes[root] = math.prod(self._product(p, products, sizes) for p in products[root])
        return sizes[root]


def _is_gather(index: Index) -> bool:
    """An index that is one integer input's value and nothing else."""
    if index.offset or len(index.terms) != 1:
        return False
    term, coefficient = index.terms[0]
    return coefficient == 1 and isinstance(term, Load)


class _Table:
    """Rebuilds terms, tensors and graphs with the sizes drawn."""

    def __init__(self, classes: _Classes, sizes: dict[Key, int]) -> None:
        self.classes, self.sizes = classes, sizes
        self.tiles: dict[str, int] = {}
        self.nodes: dict[Node, Node] = {}

    def size(self, key: Key) -> int:
        return self.sizes[self.classes.find(key)]

    def some(self, axis: Axis, rng: np.random.Generator) -> int:
        """A tile that cuts an axis into few pieces, the last one mostly ragged."""
        size = int(self.axis(axis).size)
        if size < 8:  # mostly two or three pieces, the last one ragged; now and then one
            if rng.random() < 0.1:
                return size + 1
            return min(int(rng.choice((1, 2, 2, 2, 3))), max(1, size - 1))
        return size // 3 + int(rng.integers(1, 3))

    def tile(self, tile: Size, value: int) -> None:
        symbol = self.tiled(tile)
        if isinstance(symbol, str):
            self.tiles[symbol] = max(value, self.tiles.get(symbol, 0))

    def tiled(self, tile: Size) -> Size:
        """A tile of 1 stays; any other number becomes a symbol of its own."""
        return f"tile{tile}" if isinstance(tile, int) and tile > 1 else tile

    def axis(self, axis: Axis) -> Axis:
        return Axis(axis.name, self.size(("axis", axis.name, axis.size)))

    def axes(self, axes: Iterable[Axis]) -> tuple[Axis, ...]:
        return tuple(map(self.axis, axes))

    def tensor(self, tensor: Tensor) -> Tensor:
        shape = tuple(
            self.size(("dim", f"{tensor.name}.{n}", "")) for n in range(len(tensor.shape))
        )
        return Tensor(tensor.name, shape, tensor.dtype)

    def index(self, index: Index, tensor: Tensor | None = None, dim: int = 0) -> Index:
        parts = None
        if tensor is not None and len(index.terms) > 1:
            parts = self.classes.radix(
                index, self.classes.real[("dim", f"{tensor.name}.{dim}", "")]
            )
        if parts is not None:
            unit, terms = 1, list[tuple[Axis | Node, int]]()
            for _, name, size in parts:
                axis = self.axis(Axis(name, size))
                terms.append((axis, unit))
                unit *= int(axis.size)
            return affine(terms)
        return affine(
            [(self.axis(t) if isinstance(t, Axis) else self.term(t), c) for t, c in index.terms],
            index.offset,
        )

    def term(self, root: Node) -> Node:
        for node in walk([root]):
            if node not in self.nodes:
                self.nodes[node] = self._term(node)
        return self.nodes[root]

    def _term(self, node: Node) -> Node:
        match node:
            case Iota():
                return Iota(self.axis(node.axis), node.sort_)
            case Load():
                index = tuple(self.index(i, node.tensor, n) for n, i in enumerate(node.index))
                guard = tuple(Within(self.index(g.index), g.low, g.high) for g in node.guard)
                return Load(self.tensor(node.tensor), index, guard, node.fill)
            case Pointwise():
                return Pointwise(node.op, tuple(self.nodes[a] for a in node.args), node.parameter)
            case Reduce():
                axes, body = self.axes(node.axes), self.nodes[node.body]
                return Reduce(node.monoid, axes, body, node.precision, node.index_sort)
            case Carried():
                return Carried(node.accumulator, node.phase, node.sort_, self.axes(node.axes))
            case _:
                return node

    def store(self, store: Store) -> Store:
        index = tuple(self.index(i, store.tensor, n) for n, i in enumerate(store.index))
        return Store(self.tensor(store.tensor), index, self.term(store.value))

    def accumulator(self, acc: Accumulator) -> Accumulator:
        rescale = None if acc.rescale is None else self.term(acc.rescale)
        summand = self.term(acc.summand)
        return replace(acc, summand=summand, axes=self.axes(acc.axes), rescale=rescale)

    def loop(self, loop: Loop) -> Loop:
        return Loop(
            self.axis(loop.axis),
            self.tiled(loop.tile),
            tuple(map(self.accumulator, loop.accumulators)),
            tuple(map(self.store, loop.stores)),
            tuple(map(self.loop, loop.inner)),
            None if loop.split is None else self.axis(loop.split),
        )

    def sgraph(self, graph: SGraph) -> SGraph:
        return SGraph(
            graph.name,
            tuple(map(self.tensor, graph.inputs)),
            tuple(self._nodes(graph)),
            tuple(map(self.tensor, graph.outputs)),
            graph.compute,
        )

    def _nodes(self, graph: SGraph) -> Iterator[Kernel | LibraryCall]:
        for node in graph.nodes:
            stores = tuple(map(self.store, node.stores))
            if isinstance(node, LibraryCall):
                yield LibraryCall(node.name, node.library, stores)
            else:
                grid = tuple(GridAxis(self.axis(g.axis), self.tiled(g.tile)) for g in node.grid)
                yield Kernel(node.name, grid, tuple(map(self.loop, node.loops)), stores)
