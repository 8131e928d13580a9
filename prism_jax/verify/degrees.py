"""How large the polynomials are that the finite-field test compares: its error probability.

In: a program and an sGraph at small sizes. Out: a bound on the degree of (numerator of the
difference of) the rational functions they are in their inputs, and the number of exponentials that
may meet in one output element. Coarse and cheap: only the logarithm of the degree matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from prism_jax.ir.nodes import Axis, Carried, Load, Node, Pointwise, Reduce, Store
from prism_jax.ir.program import Program, walk
from prism_jax.ir.sgraph import LibraryCall, Loop, SGraph

Degree: TypeAlias = tuple[int, int]
"""Of the numerator and of the denominator."""

_EXPONENTIALS = ("exp", "exp2", "expm1", "logistic", "tanh")


def degree(program: Program, graph: SGraph) -> int:
    """The degree of the difference of an output of one and of the other."""
    ours = _stores(program.outputs, {}, {})
    tensors: dict[str, Degree] = {}
    for node in graph.nodes:
        if isinstance(node, LibraryCall):
            tensors |= _stores(node.stores, tensors, {})
            continue
        carried: dict[str, Degree] = {}
        for loop in node.loops:
            _loop(loop, tensors, carried)
        tensors |= _stores(node.all_stores, tensors, carried)
    worst = 1
    for store, output in zip(program.outputs, graph.outputs, strict=True):
        a, b = ours[store.tensor.name], tensors.get(output.name, (1, 0))
        worst = max(worst, a[0] + b[1], a[1] + b[0])
    return worst


def exponentials(program: Program) -> int:
    """How many exponentials enter one output element, of both sides together."""
    worst = 0
    for store in program.outputs:
        outer = {a for index in store.index for a in index.axes_free}
        found = 0
        for node in walk([store.value]):
            if isinstance(node, Pointwise) and node.op in _EXPONENTIALS:
                found += math.prod(_size(a) for a in node.axes_free if a not in outer)
        worst = max(worst, 2 * found)
    return worst


def _loop(loop: Loop, tensors: Mapping[str, Degree], carried: dict[str, Degree]) -> None:
    for inner in loop.inner:
        _loop(inner, tensors, carried)
    for acc in loop.accumulators:
        a, b = _degree([acc.summand], tensors, carried)[acc.summand]
        carried[acc.name] = (a, b)
        c, d = (0, 0)
        if acc.rescale is not None:
            c, d = _degree([acc.rescale], tensors, carried)[acc.rescale]
        total = _size(loop.axis) * (a + b + c + d)
        carried[acc.name] = (total, total) if b + c + d else (a, 0)


def _stores(
    stores: Iterable[Store], tensors: Mapping[str, Degree], carried: Mapping[str, Degree]
) -> dict[str, Degree]:
    stores = tuple(stores)
    found = _degree([s.value for s in stores], tensors, carried)
    return {s.tensor.name: found[s.value] for s in stores}


def _degree(
    roots: Iterable[Node], tensors: Mapping[str, Degree], carried: Mapping[str, Degree]
) -> dict[Node, Degree]:
    found: dict[Node, Degree] = {}
    for node in walk(roots):
        match node:
            case Load():
                found[node] = tensors.get(node.tensor.name, (1, 0))
            case Carried():
                found[node] = carried.get(node.accumulator, (1, 0))
            case Pointwise():
                found[node] = _pointwise(node, [found[a] for a in node.args])
            case Reduce():
                n, d = found[node.body]
                size = math.prod(_size(a) for a in node.axes)
                found[node] = (n + (size - 1) * d, size * d) if node.monoid == "sum" else (n, d)
                if node.monoid == "prod":
                    found[node] = (size * n, size * d)
            case _:
                found[node] = (0, 0)
    return found


def _pointwise(node: Pointwise, args: list[Degree]) -> Degree:
    match node.op:
        case "add" | "sub":
            (a, b), (c, d) = args
            return max(a + d, c + b), b + d
        case "mul":
            return args[0][0] + args[1][0], args[0][1] + args[1][1]
        case "div":
            return args[0][0] + args[1][1], args[0][1] + args[1][0]
        case "integer_pow" if isinstance(node.parameter, int):
            n, d = args[0] if node.parameter >= 0 else args[0][::-1]
            return abs(node.parameter) * n, abs(node.parameter) * d
        case _:
            return max(a for a, _ in args), max(b for _, b in args)


def _size(axis: Axis) -> int:
    return int(axis.size)
