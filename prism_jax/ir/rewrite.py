"""Substitution on terms: renaming axes and replacing nodes, with the scoping of binders respected.

>>> from prism_jax.ir.nodes import Axis, Load, Reduce, Tensor, at
>>> i, j, k = Axis("i", 4), Axis("j", 4), Axis("k", 8)
>>> x = Tensor("x", (4, 8), "float32")
>>> row = Reduce("sum", (k,), Load(x, (at(i), at(k))))
>>> rename(row, {i: j}) is Reduce("sum", (k,), Load(x, (at(j), at(k))))
True
>>> rename(row, {k: j}) is row
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Store,
    Within,
    affine,
)


def rebuild(node: Node, child: Callable[[Node], Node]) -> Node:
    """The same node over `child(operand)` for every operand, index nodes included."""
    match node:
        case Pointwise():
            args = tuple(child(a) for a in node.args)
            if all(new is old for new, old in zip(args, node.args, strict=True)):
                return node
            return Pointwise(node.op, args, node.parameter)
        case Reduce():
            body = child(node.body)
            if body is node.body:
                return node
            return Reduce(node.monoid, node.axes, body, node.precision, node.index_sort)
        case Load() if node.index_nodes:
            index = tuple(_map_nodes(i, child) for i in node.index)
            guard = tuple(Within(_map_nodes(g.index, child), g.low, g.high) for g in node.guard)
            return Load(node.tensor, index, guard, node.fill)
        case _:
            return node


def _map_nodes(index: Index, child: Callable[[Node], Node]) -> Index:
    if not index.nodes:
        return index
    return affine(
        [(t if isinstance(t, Axis) else child(t), c) for t, c in index.terms], index.offset
    )


def replace(root: Node, mapping: Mapping[Node, Node]) -> Node:
    """The term with every node of `mapping` replaced, outermost first; replacements keep the free
    axes of what they replace.
    """
    return Replacing(mapping)(root)


class Replacing:
    """`replace` for several terms. (Classes rather than recursive closures: those are cycles, which
    are left to Python's collector.)
    """

    def __init__(self, mapping: Mapping[Node, Node]) -> None:
        self._done = dict(mapping)

    def __call__(self, node: Node) -> Node:
        """The term with what the mapping names replaced."""
        found = self._done.get(node)
        if found is None:
            found = self._done[node] = rebuild(node, self)
        return found


def rename(root: Node, axes: Mapping[Axis, Axis]) -> Node:
    """The term with its free axes renamed, all at once. A binder that would capture a new name gets
    a primed name first.
    """
    memo: dict[tuple[Node, tuple[tuple[Axis, Axis], ...]], Node] = {}

    def visit(node: Node, axes: dict[Axis, Axis]) -> Node:
        axes = {a: b for a, b in axes.items() if a is not b and a != b and a in node.axes_free}
        if not axes:
            return node
        key = (node, tuple(sorted(axes.items())))
        if key not in memo:
            memo[key] = step(node, axes)
        return memo[key]

    def index_of(index: Index, axes: dict[Axis, Axis]) -> Index:
        terms = [
            (axes.get(t, t) if isinstance(t, Axis) else visit(t, axes), c) for t, c in index.terms
        ]
        return affine(terms, index.offset)

    def step(node: Node, axes: dict[Axis, Axis]) -> Node:
        match node:
            case Iota():
                return Iota(axes.get(node.axis, node.axis), node.sort_)
            case Load():
                guard = tuple(Within(index_of(g.index, axes), g.low, g.high) for g in node.guard)
                return Load(
                    node.tensor, tuple(index_of(i, axes) for i in node.index), guard, node.fill
                )
            case Carried():
                return Carried(
                    node.accumulator,
                    node.phase,
                    node.sort_,
                    tuple(axes.get(a, a) for a in node.axes),
                )
            case Reduce():
                bound = {
                    a: _fresh(a, {*axes.values(), *node.body.axes_free})
                    for a in node.axes
                    if a in axes.values()
                }
                inner = {a: b for a, b in axes.items() if a not in node.axes} | bound
                names = tuple(bound.get(a, a) for a in node.axes)
                return Reduce(
                    node.monoid, names, visit(node.body, inner), node.precision, node.index_sort
                )
            case _:
                return rebuild(node, lambda child: visit(child, axes))

    return visit(root, dict(axes))


def _fresh(axis: Axis, taken: set[Axis]) -> Axis:
    while axis in taken:
        axis = Axis(axis.name + "'", axis.size)
    return axis


def rename_store(store: Store, axes: Mapping[Axis, Axis]) -> Store:
    """The store with its axes renamed in index and value."""
    index = tuple(
        affine([(axes.get(t, t) if isinstance(t, Axis) else t, c) for t, c in i.terms], i.offset)
        for i in store.index
    )
    return Store(store.tensor, index, rename(store.value, axes))


def canonical(node: Node) -> tuple[Node, tuple[Axis, ...]]:
    """The node's tensor: the node with its free axes renamed in a fixed way, and the axes that
    stand in those places.

    Two nodes are elements of one tensor exactly if their canonical terms are one node.
    """
    order: list[Axis] = []

    def visit(node: Node, hidden: frozenset[Axis]) -> None:
        if all(a in hidden or a in order for a in node.axes_free):
            return
        if isinstance(node, Load | Iota | Carried):
            indices = (
                (*node.index, *(g.index for g in node.guard)) if isinstance(node, Load) else ()
            )
            axes = [t for i in indices for t, _ in i.terms if isinstance(t, Axis)] or list(
                node.axes_free
            )
            order.extend(a for a in dict.fromkeys(axes) if a not in hidden and a not in order)
            for inner in (n for i in indices for n in i.nodes):
                visit(inner, hidden)
            return
        below = hidden | set(node.axes) if isinstance(node, Reduce) else hidden
        for child in node.children:
            visit(child, below)

    visit(node, frozenset())
    places = {axis: Axis(f"_{n}", axis.size) for n, axis in enumerate(order)}
    return rename(node, places), tuple(order)
