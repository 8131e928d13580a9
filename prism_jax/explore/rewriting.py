"""The same structure with other axes, tensors and precisions: how a kernel found at one size is
written at another.

In: nodes, stores, kernels or library calls. Out: the same over changed leaves. Nothing else is
changed, so that what was proved for all sizes of the one holds for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Precision,
    Reduce,
    Size,
    Store,
    Tensor,
    Within,
    affine,
)
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop


class Rewriting:
    """Changes leaves; remembers every node it has seen."""

    def __init__(
        self,
        axis: Callable[[Axis], Axis],
        tensor: Callable[[Tensor, tuple[Index, ...]], Tensor],
        precision: Callable[[Precision], Precision] = lambda p: p,
        size: Callable[[Size], Size] = lambda s: s,
    ) -> None:
        self._axis, self._tensor, self._precision, self._size = axis, tensor, precision, size
        self._memo: dict[Node, Node] = {}
        """Leaves are changed by `axis`, by `tensor` (which is told the changed index) and so on."""

    def node(self, root: Node) -> Node:
        """The term over the changed leaves."""
        if root not in self._memo:
            self._memo[root] = self._changed(root)
        return self._memo[root]

    def _changed(self, node: Node) -> Node:
        match node:
            case Iota():
                return Iota(self._axis(node.axis), node.sort_)
            case Load():
                guard = tuple(Within(self.index(g.index), g.low, g.high) for g in node.guard)
                index = tuple(map(self.index, node.index))
                return Load(self._tensor(node.tensor, index), index, guard, node.fill)
            case Carried():
                axes = tuple(map(self._axis, node.axes))
                return Carried(node.accumulator, node.phase, node.sort_, axes)
            case Reduce():
                axes = tuple(map(self._axis, node.axes))
                body = self.node(node.body)
                return Reduce(node.monoid, axes, body, self._asked(node.precision), node.index_sort)
            case Pointwise():
                return Pointwise(node.op, tuple(map(self.node, node.args)), node.parameter)
            case _:
                return node

    def _asked(self, precision: Precision | None) -> Precision | None:
        return None if precision is None else self._precision(precision)

    def index(self, index: Index) -> Index:
        """An index over the changed axes."""
        terms = [
            (self._axis(t) if isinstance(t, Axis) else self.node(t), c) for t, c in index.terms
        ]
        return affine(terms, index.offset)

    def store(self, store: Store) -> Store:
        """A store into the changed tensor."""
        index = tuple(map(self.index, store.index))
        return Store(self._tensor(store.tensor, index), index, self.node(store.value))

    def kernel(self, kernel: Kernel) -> Kernel:
        """A kernel over the changed leaves, with the same symbols for its tiles."""
        grid = tuple(GridAxis(self._axis(g.axis), self._size(g.tile)) for g in kernel.grid)
        loops = tuple(map(self._loop, kernel.loops))
        return Kernel(kernel.name, grid, loops, tuple(map(self.store, kernel.stores)))

    def call(self, call: LibraryCall) -> LibraryCall:
        """A library call over the changed leaves."""
        return replace(call, stores=tuple(map(self.store, call.stores)))

    def step(self, step: Kernel | LibraryCall) -> Kernel | LibraryCall:
        """A kernel or a library call."""
        return self.kernel(step) if isinstance(step, Kernel) else self.call(step)

    def _loop(self, loop: Loop) -> Loop:
        return Loop(
            self._axis(loop.axis),
            self._size(loop.tile),
            tuple(map(self._accumulator, loop.accumulators)),
            tuple(map(self.store, loop.stores)),
            tuple(map(self._loop, loop.inner)),
            None if loop.split is None else self._axis(loop.split),
        )

    def _accumulator(self, acc: Accumulator) -> Accumulator:
        return replace(
            acc,
            summand=self.node(acc.summand),
            axes=tuple(map(self._axis, acc.axes)),
            rescale=None if acc.rescale is None else self.node(acc.rescale),
            precision=self._asked(acc.precision),
        )


def renamed_symbols(
    steps: tuple[Kernel | LibraryCall, ...], name: Callable[[str], str]
) -> tuple[Kernel | LibraryCall, ...]:
    """The steps with other names for their size symbols: of tiles, and of axes that splits made."""

    def size(old: Size) -> Size:
        return name(old) if isinstance(old, str) else old

    def axis(old: Axis) -> Axis:
        return old if isinstance(old.size, int) else Axis(old.name, size(old.size))

    def tensor(old: Tensor, index: tuple[Index, ...]) -> Tensor:
        if all(isinstance(s, int) for s in old.shape):
            return old
        return Tensor(old.name, tuple(map(size, old.shape)), old.dtype)

    symbols = {s for k in steps if isinstance(k, Kernel) for s in k.symbols}
    if not any(s.startswith("S_") and name(s) != s for s in symbols):
        return tuple(_tiles(s, size) if isinstance(s, Kernel) else s for s in steps)
    return tuple(map(Rewriting(axis, tensor, size=size).step, steps))


def _tiles(kernel: Kernel, size: Callable[[Size], Size]) -> Kernel:
    """The kernel with its tile symbols renamed; its terms have no symbols."""

    def loop(one: Loop) -> Loop:
        return replace(one, tile=size(one.tile), inner=tuple(map(loop, one.inner)))

    grid = tuple(GridAxis(g.axis, size(g.tile)) for g in kernel.grid)
    return replace(kernel, grid=grid, loops=tuple(map(loop, kernel.loops)))
