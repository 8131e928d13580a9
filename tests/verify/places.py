"""Changing one place of an sGraph: what mutants and right variants are made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from prism_jax.ir.nodes import Const, Node, Store
from prism_jax.ir.rewrite import rebuild
from prism_jax.ir.sgraph import Accumulator, Kernel, LibraryCall, Loop, SGraph


def edit(root: Node, target: Node, new: Node) -> Node:
    """The term with one node replaced wherever it stands."""
    memo: dict[Node, Node] = {target: new}

    def visit(node: Node) -> Node:
        if node not in memo:
            memo[node] = rebuild(node, visit)
        return memo[node]

    return visit(root)


def _map_loop(loop: Loop, change: Callable[[Node, str], Node]) -> Loop:
    accumulators = tuple(
        replace(
            a,
            summand=change(a.summand, f"summand of {a.name}"),
            rescale=None if a.rescale is None else change(a.rescale, f"rescaling of {a.name}"),
        )
        for a in loop.accumulators
    )
    stores = tuple(_map_store(s, change) for s in loop.stores)
    inner = tuple(_map_loop(i, change) for i in loop.inner)
    return replace(loop, accumulators=accumulators, stores=stores, inner=inner)


def _map_store(store: Store, change: Callable[[Node, str], Node]) -> Store:
    return Store(store.tensor, store.index, change(store.value, f"store of {store.tensor.name}"))


def _map_graph(graph: SGraph, change: Callable[[Node, str], Node]) -> SGraph:
    nodes: list[Kernel | LibraryCall] = []
    for node in graph.nodes:
        stores = tuple(_map_store(s, change) for s in node.stores)
        if isinstance(node, Kernel):
            loops = tuple(_map_loop(loop, change) for loop in node.loops)
            nodes.append(replace(node, loops=loops, stores=stores))
        else:
            nodes.append(replace(node, stores=stores))
    return replace(graph, nodes=tuple(nodes))


def places(graph: SGraph) -> list[tuple[str, Node]]:
    """Every term of the kernels with a name."""
    found: list[tuple[str, Node]] = []

    def note(root: Node, where: str) -> Node:
        found.append((where, root))
        return root

    _map_graph(graph, note)
    return found


def at_place(graph: SGraph, place: int, target: Node, new: Node) -> SGraph:
    """The graph with `target` replaced in one of its terms."""
    count = iter(range(1 << 30))
    return _map_graph(
        graph, lambda root, _: edit(root, target, new) if next(count) == place else root
    )


def each_loop(
    graph: SGraph, change: Callable[[Loop], Iterator[tuple[str, Loop]]]
) -> Iterator[tuple[str, SGraph]]:
    """Every graph in which one top-level loop is changed."""
    for n, node in enumerate(graph.nodes):
        if isinstance(node, Kernel):
            for m, loop in enumerate(node.loops):
                for what, new in change(loop):
                    loops = (*node.loops[:m], new, *node.loops[m + 1 :])
                    nodes = (*graph.nodes[:n], replace(node, loops=loops), *graph.nodes[n + 1 :])
                    yield what, replace(graph, nodes=nodes)


def with_accumulator(loop: Loop, n: int, acc: Accumulator) -> Loop:
    """The loop with its n-th accumulator replaced."""
    return replace(loop, accumulators=(*loop.accumulators[:n], acc, *loop.accumulators[n + 1 :]))


def wrapped(graph: SGraph, place: int, node: Node, new: Node) -> SGraph:
    """As `at_place`, where the replacement holds the node that it replaces."""
    mark = Const(float("nan"))
    inside = edit(new, node, mark)
    count = iter(range(1 << 30))

    def change(root: Node, _: str) -> Node:
        return edit(root, node, edit(inside, mark, node)) if next(count) == place else root

    return _map_graph(graph, change)
