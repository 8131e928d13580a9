"""Numbers for symbols: an sGraph whose axes, tensors and tiles all have integer sizes.

In: an sGraph and a value for each of its symbols. Out: the same sGraph without symbols. Nothing
else changes, so that every emitter works on plain numbers.

>>> from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
>>> from prism_jax.ir.sgraph import GridAxis, Kernel, SGraph
>>> i = Axis("i", "N")
>>> x, y = Tensor("x", ("N",), "float32"), Tensor("y", ("N",), "float32")
>>> kernel = Kernel("copy", (GridAxis(i, "T"),), (), (Store(y, (at(i),), Load(x, (at(i),))),))
>>> concrete(SGraph("copy", (x,), (kernel,), (y,)), {"N": 8, "T": 4}).kernels[0].grid
(GridAxis(axis=Axis(name='i', size=8), tile=4),)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph

__all__ = ["concrete", "concrete_tensors", "number"]


def number(size: Size) -> int:
    """`size` as the number that it is by now.

    Raises:
      ValueError: it is still a symbol.
    """
    if isinstance(size, str):
        raise ValueError(f"size {size!r} has no value; sizes must give one to every symbol")
    return size


def concrete(sgraph: SGraph, sizes: Mapping[str, int]) -> SGraph:
    """`sgraph` with every symbol replaced by its value in `sizes`.

    Raises:
      ValueError: a symbol without a value.
    """
    return _Substitution(sizes).sgraph(sgraph)


def concrete_tensors(sgraph: SGraph, sizes: Mapping[str, int]) -> SGraph:
    """`sgraph` with numbers for the dimensions of its inputs and outputs only; its kernels keep
    their symbols.

    Raises:
      ValueError: a symbol without a value.
    """
    tensor = _Substitution(sizes).tensor
    inputs, outputs = map(tensor, sgraph.inputs), map(tensor, sgraph.outputs)
    return replace(sgraph, inputs=tuple(inputs), outputs=tuple(outputs))


class _Substitution:
    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._nodes: dict[Node, Node] = {}

    def size(self, size: Size) -> int:
        return number(self._sizes.get(size, size) if isinstance(size, str) else size)

    def axis(self, axis: Axis) -> Axis:
        return Axis(axis.name, self.size(axis.size))

    def tensor(self, tensor: Tensor) -> Tensor:
        return Tensor(tensor.name, tuple(map(self.size, tensor.shape)), tensor.dtype)

    def index(self, index: Index) -> Index:
        terms = [
            (self.axis(t) if isinstance(t, Axis) else self._nodes[t], c) for t, c in index.terms
        ]
        return affine(terms, index.offset)

    def node(self, root: Node) -> Node:
        for node in walk([root]):
            if node not in self._nodes:
                self._nodes[node] = self._step(node)
        return self._nodes[root]

    def _step(self, node: Node) -> Node:
        match node:
            case Iota():
                return Iota(self.axis(node.axis), node.sort_)
            case Load():
                guard = tuple(Within(self.index(g.index), g.low, g.high) for g in node.guard)
                return Load(
                    self.tensor(node.tensor), tuple(map(self.index, node.index)), guard, node.fill
                )
            case Pointwise():
                return Pointwise(node.op, tuple(self._nodes[a] for a in node.args), node.parameter)
            case Reduce():
                axes = tuple(map(self.axis, node.axes))
                return Reduce(
                    node.monoid, axes, self._nodes[node.body], node.precision, node.index_sort
                )
            case Carried():
                return replace(node, axes=tuple(map(self.axis, node.axes)))
            case _:
                return node

    def store(self, store: Store) -> Store:
        index = tuple(map(self.index, store.index))
        return Store(self.tensor(store.tensor), index, self.node(store.value))

    def accumulator(self, accumulator: Accumulator) -> Accumulator:
        rescale = accumulator.rescale
        return replace(
            accumulator,
            summand=self.node(accumulator.summand),
            axes=tuple(map(self.axis, accumulator.axes)),
            rescale=None if rescale is None else self.node(rescale),
        )

    def loop(self, loop: Loop) -> Loop:
        return Loop(
            self.axis(loop.axis),
            self.size(loop.tile),
            tuple(map(self.accumulator, loop.accumulators)),
            tuple(map(self.store, loop.stores)),
            tuple(map(self.loop, loop.inner)),
            None if loop.split is None else self.axis(loop.split),
        )

    def sgraph(self, sgraph: SGraph) -> SGraph:
        nodes: list[Kernel | LibraryCall] = []
        for node in sgraph.nodes:
            stores = tuple(map(self.store, node.stores))
            if isinstance(node, LibraryCall):
                nodes.append(replace(node, stores=stores))
                continue
            grid = tuple(GridAxis(self.axis(g.axis), self.size(g.tile)) for g in node.grid)
            nodes.append(Kernel(node.name, grid, tuple(map(self.loop, node.loops)), stores))
        inputs, outputs = map(self.tensor, sgraph.inputs), map(self.tensor, sgraph.outputs)
        return SGraph(sgraph.name, tuple(inputs), tuple(nodes), tuple(outputs), sgraph.compute)
