"""Mechanical variants of right sGraphs: wrong ones, by class.

A mutant is one small change at one place of one term of a kernel. It counts as wrong only if
exhaustive evaluation in float64 at small sizes differs from the program's; equivalent ones are set
aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

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
    Within,
    affine,
)
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Loop, SGraph
from tests.verify.pairs import Pair
from tests.verify.places import at_place, each_loop, edit, places, with_accumulator, wrapped

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
    for place, (where, root) in enumerate(places(graph)):
        for node in walk([root]):
            if isinstance(node, Pointwise):
                for other in _SWAPS.get(node.op, ()):
                    new = Pointwise(other, node.args, node.parameter)
                    yield f"{node.op} -> {other} in the {where}", at_place(graph, place, node, new)
                if node.op in ("sub", "div"):
                    new = Pointwise(node.op, node.args[::-1])
                    yield f"{node.op} reversed in the {where}", at_place(graph, place, node, new)
                if node.op == "integer_pow":
                    new = Pointwise(node.op, node.args, 3)
                    yield f"another power in the {where}", at_place(graph, place, node, new)
            elif isinstance(node, Reduce):
                for monoid in _MONOIDS[node.monoid]:
                    new = Reduce(monoid, node.axes, node.body, None, node.index_sort)
                    yield (
                        f"{node.monoid} -> {monoid} in the {where}",
                        at_place(graph, place, node, new),
                    )

    def monoids(loop: Loop) -> Iterator[tuple[str, Loop]]:
        for n, acc in enumerate(loop.accumulators):
            for monoid in _MONOIDS[acc.monoid]:
                yield (
                    f"{acc.name}: {acc.monoid} -> {monoid}",
                    with_accumulator(loop, n, replace(acc, monoid=monoid)),
                )

    yield from each_loop(graph, monoids)


def _axes(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    known = sorted(
        {a for _, root in places(graph) for n in walk([root]) for a in n.axes_free}
        | {loop.axis for k in graph.kernels for loop in k.all_loops}
    )
    for place, (where, root) in enumerate(places(graph)):
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
                            at_place(graph, place, node, new),
                        )
                axis = node.index[a].axis
                for other in known:
                    if axis is not None and other != axis and other.size == axis.size:
                        index = list(node.index)
                        index[a] = affine([(other, 1)])
                        new = Load(node.tensor, tuple(index), node.guard, node.fill)
                        what = f"{node.tensor.name} by {other} for {axis} in the {where}"
                        yield what, at_place(graph, place, node, new)


def _scales(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(places(graph)):
        for node in walk([root]):
            if isinstance(node, Const) and node.sort == REAL and np.isfinite(node.value):
                for value in {1.0, 2 * float(node.value), -float(node.value), 0.0} - {
                    float(node.value)
                }:
                    what = f"{node.value:g} -> {value:g} in the {where}"
                    yield what, at_place(graph, place, node, Const(value))
            if isinstance(node, Pointwise) and node.op in ("mul", "div") and node.sort == REAL:
                yield f"a factor dropped in the {where}", at_place(graph, place, node, node.args[0])
                if node.op == "mul":
                    yield (
                        f"a factor dropped in the {where}",
                        at_place(graph, place, node, node.args[1]),
                    )
                doubled = Pointwise("mul", (node, Const(2.0)))
                yield f"a factor of 2 in the {where}", wrapped(graph, place, node, doubled)


_OFF = {
    "le": ("lt", "gt"),
    "lt": ("le", "ge"),
    "ge": ("gt", "lt"),
    "gt": ("ge", "le"),
    "eq": ("ne", "le"),
    "ne": ("eq",),
}


def _masks(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(places(graph)):
        for node in walk([root]):
            if (
                isinstance(node, Pointwise)
                and node.op in _OFF
                and node.args[0].sort not in (REAL, "bool")
            ):
                for other in _OFF[node.op]:
                    new = Pointwise(other, node.args)
                    yield f"{node.op} -> {other} in the {where}", at_place(graph, place, node, new)
                for side in (0, 1):
                    for shift in (-2, -1, 1, 2):
                        arg = node.args[side]
                        moved = Pointwise("add", (arg, Const(shift, arg.sort)))
                        args = (moved, node.args[1]) if side == 0 else (node.args[0], moved)
                        new = Pointwise(node.op, args)
                        what = f"side {side} of the mask moved by {shift} in the {where}"
                        yield what, at_place(graph, place, node, new)
            if isinstance(node, Load) and node.guard:
                for n, guard in enumerate(node.guard):
                    for low, high in ((1, 0), (0, -1), (1, -1), (2, 0), (0, -2)):
                        tight = Within(guard.index, guard.low + low, guard.high + high)
                        guards = (*node.guard[:n], tight, *node.guard[n + 1 :])
                        new = Load(node.tensor, node.index, guards, node.fill)
                        yield (
                            f"guard moved by {low}, {high} in the {where}",
                            at_place(graph, place, node, new),
                        )


def _rescalings(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    def change(loop: Loop) -> Iterator[tuple[str, Loop]]:
        for n, acc in enumerate(loop.accumulators):
            if acc.rescale is None:
                continue
            g = acc.rescale
            yield (
                f"{acc.name} not rescaled",
                with_accumulator(loop, n, replace(acc, rescale=None, depends=())),
            )
            yield (
                f"{acc.name} not rescaled, live",
                with_accumulator(loop, n, replace(acc, rescale=None)),
            )
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
                yield (
                    f"{acc.name} rescaled {what}",
                    with_accumulator(loop, n, replace(acc, rescale=new)),
                )
            added = replace(acc, action="add")
            yield f"{acc.name} rescaled by adding", with_accumulator(loop, n, added)

    yield from each_loop(graph, change)


def _phase(root: Node, before: str, after: str) -> Node:
    for node in list(walk([root])):
        if isinstance(node, Carried) and node.phase == before:
            root = edit(root, node, Carried(node.accumulator, after, node.sort_, node.axes))
    return root


def _neutrals(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(places(graph)):
        for node in walk([root]):
            if isinstance(node, Pointwise) and node.op == "where" and node.sort == REAL:
                for side in (1, 2):
                    old = node.args[side]
                    if isinstance(old, Const):
                        for value in {0.0, 1.0, -1.0, 3.0, 0.25} - {float(old.value)}:
                            args = (*node.args[:side], Const(value), *node.args[side + 1 :])
                            new = Pointwise("where", args)
                            what = f"{old.value:g} outside the mask -> {value:g} in the {where}"
                            yield what, at_place(graph, place, node, new)
            if isinstance(node, Load) and node.fill is not None:
                for value in {0.0, 1.0, -1.0, 0.5, 2.0} - {float(node.fill.value)}:
                    new = Load(node.tensor, node.index, node.guard, Const(value))
                    yield (
                        f"fill {node.fill.value:g} -> {value:g} in the {where}",
                        at_place(graph, place, node, new),
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
                yield f"{acc.name} starts {value:g} too high", with_accumulator(loop, n, new)

    yield from each_loop(graph, start)


def _stale(graph: SGraph) -> Iterator[tuple[str, SGraph]]:
    for place, (where, root) in enumerate(places(graph)):
        for node in walk([root]):
            if isinstance(node, Carried) and node.phase == "new":
                new = Carried(node.accumulator, "old", node.sort_, node.axes)
                yield (
                    f"{node.accumulator} of the last step in the {where}",
                    at_place(graph, place, node, new),
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
                            at_place(graph, place, node, _late(node, n, late)),
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
