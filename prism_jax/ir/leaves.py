"""The same structure over other axes, tensors, sizes and precisions: how a kernel found at one size
is written at another, gets numbers for its symbols, or is asked for more exact products.

In: nodes, stores, kernels or library calls. Out: the same over changed leaves. Nothing else is
changed, so that what was proved for all sizes of the one holds for the other. Terms may be of any
depth. (`verify/shrink.py` changes sizes by code of its own: the checker shares none with those
whose work it checks.)
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
        axis: Callable[[Axis], Axis] = lambda a: a,
        tensor: Callable[[Tensor, tuple[Index, ...]], Tensor] = lambda t, _: t,
        precision: Callable[[Precision], Precision] = lambda p: p,
        size: Callable[[Size], Size] = lambda s: s,
    ) -> None:
        self._axis, self._tensor, self._precision, self._size = axis, tensor, precision, size
        self._memo: dict[Node, Node] = {}
        """Leaves are changed by `axis`, by `tensor` (which is told the changed index) and so on."""

    def node(self, root: Node) -> Node:
        """The term over the changed leaves."""
        pending = [root]
        while pending:
            node = pending[-1]
            below = (*node.index_nodes, *node.children) if isinstance(node, Load) else node.children
            missing = [child for child in below if child not in self._memo]
            if node in self._memo or not missing:
                pending.pop()
                if node not in self._memo:
                    self._memo[node] = self._changed(node)
            else:
                pending += missing
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
                body = self._memo[node.body]
                return Reduce(node.monoid, axes, body, self._asked(node.precision), node.index_sort)
            case Pointwise():
                return Pointwise(node.op, tuple(self._memo[a] for a in node.args), node.parameter)
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
