"""Mechanical variants of right sGraphs: wrong ones by class, and right ones.

A mutant is one small change at one place of one term of a kernel. It counts as wrong only if
exhaustive evaluation in float64 at small sizes differs from the program's; equivalent ones are set
aside.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import (
    REAL,
    Carried,
    Const,
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
from prism_jax.ir.program import walk
from prism_jax.ir.rewrite import rebuild
from prism_jax.ir.sgraph import Accumulator, Kernel, LibraryCall, Loop, SGraph
from tests.verify.pairs import Pair

CLASSES = (
    "operator swapped",
    "axis swapped",
    "scale dropped",
    "mask off by one",
    "not rescaled",
    "neutral element wrong",
    "stale tile",
)


@dataclass(frozen=True)
class Mutant:
    """A changed sGraph; `kind` is its class, `change` says what was done."""

    pair: Pair
    kind: str
    change: str
    sgraph: SGraph

    def __str__(self) -> str:
        return f"{self.kind}: {self.pair.name}: {self.change}"


# ---- changing one place


def _edit(root: Node, target: Node, new: Node) -> Node:
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


def _places(graph: SGraph) -> list[tuple[str, Node]]:
    """Every term of the kernels with a name."""
    found: list[tuple[str, Node]] = []

    def note(root: Node, where: str) -> Node:
        found.append((where, root))
        return root

    _map_graph(graph, note)
    return found


def _at(graph: SGraph, place: int, target: Node, new: Node) -> SGraph:
    """The graph with `target` replaced in one of its terms."""
    count = iter(range(1 << 30))
    return _map_graph(
        graph, lambda root, _: _edit(root, target, new) if next(count) == place else root
    )


def _loops(
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


# ---- the classes

_SWAPS = {
    "add": ("sub", "mul", "max"),
    "sub": ("add",),
    "mul": ("add", "div", "sub"),
    "div": ("mul", "sub"),
    "exp": ("exp2", "expm1", "abs"),
    "log": ("log1p",),
    "max": ("min", "add"),
    "rsqrt": ("sqrt", "abs"),
    "sqrt": ("rsqrt", "abs"),
    "logistic": ("tanh", "exp"),
    "gt": ("lt", "ge"),
    "and": ("or",),
    "or": ("and",),
}
_MONOIDS = {
    "sum": ("max", "prod"),
    "max": ("min", "sum"),
    "min": ("max", "sum"),
    "prod": ("sum",),
    "any": ("all",),
    "all": ("any",),
    "argmin": ("argmax",),
    "argmax": ("argmin",),
}


def _operators(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if isinstance(node, Pointwise):
                for other in _SWAPS.get(node.op, ()):
                    new = Pointwise(other, node.args, node.parameter)
                    yield f"{node.op} -> {other} in the {where}", _at(graph, place, node, new)
                if node.op in ("sub", "div"):
                    new = Pointwise(node.op, node.args[::-1])
                    yield f"{node.op} reversed in the {where}", _at(graph, place, node, new)
                if node.op == "integer_pow":
                    new = Pointwise(node.op, node.args, 3)
                    yield f"another power in the {where}", _at(graph, place, node, new)
            elif isinstance(node, Reduce):
                for monoid in _MONOIDS[node.monoid]:
                    new = Reduce(monoid, node.axes, node.body, None, node.index_sort)
                    yield f"{node.monoid} -> {monoid} in the {where}", _at(graph, place, node, new)

    def monoids(loop: Loop) -> Iterator[tuple[str, Loop]]:
        for n, acc in enumerate(loop.accumulators):
            for monoid in _MONOIDS[acc.monoid]:
                yield (
                    f"{acc.name}: {acc.monoid} -> {monoid}",
                    _with(loop, n, replace(acc, monoid=monoid)),
                )

    yield from _loops(graph, monoids)


def _with(loop: Loop, n: int, acc: Accumulator) -> Loop:
    return replace(loop, accumulators=(*loop.accumulators[:n], acc, *loop.accumulators[n + 1 :]))


def _axes(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    known = sorted(
        {a for _, root in _places(graph) for n in walk([root]) for a in n.axes_free}
        | {loop.axis for k in graph.kernels for loop in k.all_loops}
    )
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if not isinstance(node, Load):
                continue
            for a in range(len(node.index)):
                for b in range(a + 1, len(node.index)):
                    if node.tensor.shape[a] == node.tensor.shape[b]:
                        index = list(node.index)
                        index[a], index[b] = index[b], index[a]
                        new = Load(node.tensor, tuple(index), node.guard, node.fill)
                        yield (
                            f"{node.tensor.name} transposed in the {where}",
                            _at(graph, place, node, new),
                        )
                axis = node.index[a].axis
                for other in known:
                    if axis is not None and other != axis and other.size == axis.size:
                        index = list(node.index)
                        index[a] = affine([(other, 1)])
                        new = Load(node.tensor, tuple(index), node.guard, node.fill)
                        what = f"{node.tensor.name} by {other} for {axis} in the {where}"
                        yield what, _at(graph, place, node, new)


def _scales(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if isinstance(node, Const) and node.sort == REAL and np.isfinite(node.value):
                for value in {1.0, 2 * float(node.value), -float(node.value), 0.0} - {
                    float(node.value)
                }:
                    what = f"{node.value:g} -> {value:g} in the {where}"
                    yield what, _at(graph, place, node, Const(value))
            if isinstance(node, Pointwise) and node.op in ("mul", "div") and node.sort == REAL:
                yield f"a factor dropped in the {where}", _at(graph, place, node, node.args[0])
                if node.op == "mul":
                    yield f"a factor dropped in the {where}", _at(graph, place, node, node.args[1])
                doubled = Pointwise("mul", (node, Const(2.0)))
                yield f"a factor of 2 in the {where}", _wrapped(graph, place, node, doubled)


def _wrapped(graph: SGraph, place: int, node: Node, new: Node) -> SGraph:
    """As `_at`, where the replacement holds the node that it replaces."""
    mark = Const(float("nan"))
    inside = _edit(new, node, mark)
    count = iter(range(1 << 30))

    def change(root: Node, _: str) -> Node:
        return _edit(root, node, _edit(inside, mark, node)) if next(count) == place else root

    return _map_graph(graph, change)


_OFF = {
    "le": ("lt", "gt"),
    "lt": ("le", "ge"),
    "ge": ("gt", "lt"),
    "gt": ("ge", "le"),
    "eq": ("ne", "le"),
    "ne": ("eq",),
}


def _masks(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if (
                isinstance(node, Pointwise)
                and node.op in _OFF
                and node.args[0].sort not in (REAL, "bool")
            ):
                for other in _OFF[node.op]:
                    new = Pointwise(other, node.args)
                    yield f"{node.op} -> {other} in the {where}", _at(graph, place, node, new)
                for side in (0, 1):
                    for shift in (-2, -1, 1, 2):
                        arg = node.args[side]
                        moved = Pointwise("add", (arg, Const(shift, arg.sort)))
                        args = (moved, node.args[1]) if side == 0 else (node.args[0], moved)
                        new = Pointwise(node.op, args)
                        what = f"side {side} of the mask moved by {shift} in the {where}"
                        yield what, _at(graph, place, node, new)
            if isinstance(node, Load) and node.guard:
                for n, guard in enumerate(node.guard):
                    for low, high in ((1, 0), (0, -1), (1, -1), (2, 0), (0, -2)):
                        tight = Within(guard.index, guard.low + low, guard.high + high)
                        guards = (*node.guard[:n], tight, *node.guard[n + 1 :])
                        new = Load(node.tensor, node.index, guards, node.fill)
                        yield (
                            f"guard moved by {low}, {high} in the {where}",
                            _at(graph, place, node, new),
                        )


def _rescalings(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    def change(loop: Loop) -> Iterator[tuple[str, Loop]]:
        for n, acc in enumerate(loop.accumulators):
            if acc.rescale is None:
                continue
            g = acc.rescale
            yield f"{acc.name} not rescaled", _with(loop, n, replace(acc, rescale=None, depends=()))
            yield f"{acc.name} not rescaled, live", _with(loop, n, replace(acc, rescale=None))
            one = Const(1.0)
            for what, new in {
                "inverse": Pointwise("div", (one, g)),
                "squared": Pointwise("mul", (g, g)),
                "by a root": Pointwise("sqrt", (g,)),
                "by one less": Pointwise("sub", (g, one)),
                "twice as much": Pointwise("mul", (Const(2.0), g)),
                "by one": one,
                "by zero": Const(0.0),
                "by the old value": _phase(g, "new", "old"),
                "by the new value": _phase(g, "old", "new"),
            }.items():
                yield f"{acc.name} rescaled {what}", _with(loop, n, replace(acc, rescale=new))
            added = replace(acc, action="add")
            yield f"{acc.name} rescaled by adding", _with(loop, n, added)

    yield from _loops(graph, change)


def _phase(root: Node, before: str, after: str) -> Node:
    for node in list(walk([root])):
        if isinstance(node, Carried) and node.phase == before:
            root = _edit(root, node, Carried(node.accumulator, after, node.sort_, node.axes))
    return root


def _neutrals(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if isinstance(node, Pointwise) and node.op == "where" and node.sort == REAL:
                for side in (1, 2):
                    old = node.args[side]
                    if isinstance(old, Const):
                        for value in {0.0, 1.0, -1.0, 3.0, 0.25} - {float(old.value)}:
                            args = (*node.args[:side], Const(value), *node.args[side + 1 :])
                            new = Pointwise("where", args)
                            what = f"{old.value:g} outside the mask -> {value:g} in the {where}"
                            yield what, _at(graph, place, node, new)
            if isinstance(node, Load) and node.fill is not None:
                for value in {0.0, 1.0, -1.0, 0.5, 2.0} - {float(node.fill.value)}:
                    new = Load(node.tensor, node.index, node.guard, Const(value))
                    yield (
                        f"fill {node.fill.value:g} -> {value:g} in the {where}",
                        _at(graph, place, node, new),
                    )

    def start(loop: Loop) -> Iterator[tuple[str, Loop]]:
        """A wrong start of a loop is a summand with something added at the first element."""
        for n, acc in enumerate(loop.accumulators):
            if acc.summand.sort != REAL or acc.monoid not in ("sum", "max", "min", "prod"):
                continue
            first = Pointwise("eq", (Iota(loop.axis), Const(0, "int32")))
            for value in (1.0, -1.0, 100.0):
                wrong = Pointwise("where", (first, Const(value), Const(0.0)))
                new = replace(acc, summand=Pointwise("add", (acc.summand, wrong)))
                yield f"{acc.name} starts {value:g} too high", _with(loop, n, new)

    yield from _loops(graph, start)


def _stale(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if isinstance(node, Carried) and node.phase == "new":
                new = Carried(node.accumulator, "old", node.sort_, node.axes)
                yield (
                    f"{node.accumulator} of the last step in the {where}",
                    _at(graph, place, node, new),
                )
            if isinstance(node, Load):
                for n, index in enumerate(node.index):
                    axis = index.axis
                    if axis is None or not any(
                        axis == loop.axis for k in graph.kernels for loop in k.all_loops
                    ):
                        continue
                    for shift in (1, 2):
                        late = affine([(axis, 1)], -shift)
                        yield (
                            f"{node.tensor.name} {shift} late along {axis} in the {where}",
                            _at(graph, place, node, _late(node, n, late)),
                        )


def _late(node: Load, n: int, index: Index) -> Load:
    size = node.tensor.shape[n]
    assert isinstance(size, int)
    indices = (*node.index[:n], index, *node.index[n + 1 :])
    return Load(
        node.tensor,
        indices,
        (*node.guard, Within(index, 0, size)),
        node.fill or Const(0, node.sort),
    )


_MAKERS: dict[str, Callable[[SGraph], Iterator[tuple[str, SGraph]]]] = {
    "operator swapped": _operators,
    "axis swapped": _axes,
    "scale dropped": _scales,
    "mask off by one": _masks,
    "not rescaled": _rescalings,
    "neutral element wrong": _neutrals,
    "stale tile": _stale,
}


def mutants(pairs: list[Pair]) -> Iterator[Mutant]:
    """Every mutant of every pair, each sGraph once."""
    seen = {p.sgraph.digest for p in pairs}
    for kind in CLASSES:
        for pair in pairs:
            for change, graph in _MAKERS[kind](pair.sgraph):
                if graph.digest not in seen:
                    seen.add(graph.digest)
                    yield Mutant(pair, kind, change, graph)


def rewritten(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    """Right variants: one operator at one place written otherwise."""
    for place, (where, root) in enumerate(_places(graph)):
        for node in walk([root]):
            if not isinstance(node, Pointwise) or len(node.args) != 2:
                continue
            a, b = node.args
            others: list[Node] = []
            if node.op in ("add", "mul", "max", "min", "and", "or"):
                others.append(Pointwise(node.op, (b, a)))
            if node.sort == REAL and node.op == "sub":
                others.append(Pointwise("add", (a, Pointwise("neg", (b,)))))
            if node.sort == REAL and node.op == "div":
                others.append(Pointwise("mul", (a, Pointwise("integer_pow", (b,), -1))))
            if node.op in ("lt", "le", "gt", "ge"):
                mirror = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}[node.op]
                others.append(Pointwise(mirror, (b, a)))
            for new in others:
                yield f"{node.op} rewritten in the {where}", _at(graph, place, node, new)


# ---- is it wrong?


def inputs(pair: Pair, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for tensor in pair.program.inputs:
        shape = tuple(int(s) for s in tensor.shape)
        if tensor.dtype.startswith("int"):
            made[tensor.name] = rng.integers(-3, 9, shape).astype(tensor.dtype)
        else:
            made[tensor.name] = rng.standard_normal(shape) * (0.5, 1.0, 3.0)[seed % 3]
    return made


TILES = (1, 2, 3, 16)
"""Tiles of one element, ragged ones, and one tile for all: what evaluation at small sizes tries."""


def is_wrong(mutant: Mutant) -> bool | None:
    """Whether evaluation in float64 differs anywhere; None where the sGraph cannot be executed.

    Three inputs at the pair's own tiles; where these agree, every combination of `TILES`.
    """
    pair = mutant.pair
    try:
        for seed in range(3):
            if _differs(mutant, pair.sizes, inputs(pair, seed)):
                return True
    except FAILURES:
        return None
    given = inputs(pair, 1)
    for tiles in itertools.product(TILES, repeat=len(pair.sizes)):
        sizes = dict(zip(pair.sizes, tiles, strict=True))
        try:
            evaluate_sgraph(pair.sgraph, sizes, given)
        except FAILURES:
            continue  # these numbers are no instance of the right sGraph either
        try:
            if _differs(mutant, sizes, given):
                return True
        except FAILURES:
            return None
    return False


FAILURES = (AssertionError, IndexError, KeyError, ValueError, TypeError)


def _differs(mutant: Mutant, sizes: dict[str, int], given: dict[str, np.ndarray]) -> bool:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = evaluate(mutant.pair.program, given)
        found = evaluate_sgraph(mutant.sgraph, sizes, given)
    return not all(
        np.allclose(a, b, rtol=1e-9, atol=1e-11, equal_nan=True)
        for a, b in zip(expected, found, strict=True)
    )
