"""Programs into the e-graph: encode, rename axes, and what the user's own terms were.

In: a `Program`. Out: an `Encoded` graph that remembers, per class, the nodes of the user's program
that are in it, so that whatever is not rewritten decodes to exactly the nodes it came from. The way
back is `extract.py`.

Binders: a class denotes a function of its free axes *by name*, so a reduction may bind an axis
whatever else uses the name. Moving a term under a binder that would capture its axis first renames
the binder, through one representative term (the founder), to the first free name of a deterministic
list.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Reduce, Store, Tensor, at
>>> i, k = Axis("i", 4), Axis("k", 8)
>>> x = Load(Tensor("x", (4, 8), "float32"), (at(i), at(k)))
>>> twice = Pointwise("add", (x, x))
>>> store = Store(Tensor("y", (4,), "float32"), (at(i),), Reduce("sum", (k,), twice))
>>> encoded = encode(Program("p", (x.tensor,), (store,)))
>>> print(encoded.graph.node_text(encoded.graph.founder[encoded.roots[0]]))
sum[2](c2)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from prism_jax.egraph import normal
from prism_jax.egraph.core import EGraph
from prism_jax.egraph.facts import strictest
from prism_jax.egraph.normal import TensorLanguage
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Precision,
    Reduce,
    Within,
    affine,
)
from prism_jax.ir.program import Program


@dataclass(frozen=True)
class Encoded:
    """A program in an e-graph. `sources` maps a class id (as it was when encoded) to the user's
    nodes in it.
    """

    program: Program
    graph: EGraph
    roots: tuple[int, ...]
    class_of: dict[Node, int]

    @property
    def precision(self) -> Precision | None:
        """The strictest record of the whole program: what a reduction without sources of its own
        gets.
        """
        found: Precision | None = None
        for node in self.program.nodes:
            if isinstance(node, Reduce):
                found = strictest(found, node.precision)
        return found


def encode(program: Program) -> Encoded:
    """Puts every node of the program into a new e-graph, in normal form."""
    language = TensorLanguage()
    graph = EGraph(language)
    class_of: dict[Node, int] = {}
    for node in program.nodes:
        class_of[node] = encode_node(graph, node, class_of)
    graph.rebuild()
    roots = tuple(class_of[store.value] for store in program.outputs)
    return Encoded(program, graph, roots, class_of)


def encode_node(graph: EGraph, node: Node, class_of: Mapping[Node, int]) -> int:
    """The class of a node whose children are in `class_of`."""
    match node:
        case Const(value, sort):
            if sort == REAL and math.isfinite(value):
                return normal.add_number(graph, Fraction(value))
            return graph.add((("const", value, sort),))
        case Iota(axis, sort):
            return graph.add((("iota", axis, sort),))
        case Load():
            return graph.add((("load", node),))
        case Pointwise(op, args, parameter):
            return normal.add_operator(graph, op, [class_of[a] for a in args], parameter)
        case Reduce(monoid, axes, body, precision, index_sort):
            language = graph.language
            assert isinstance(language, TensorLanguage)
            language.precision = precision
            found = normal.add_reduce(graph, monoid, axes, class_of[body], index_sort)
            language.precision = None
            return found
        case _:
            raise AssertionError(f"{type(node).__name__} nodes do not occur in programs")


# ---- renaming


def fresh(axis: Axis, taken: frozenset[Axis] | set[Axis]) -> Axis:
    """The first of k', k'', ... whose *name* is not taken."""
    names = {a.name for a in taken}
    while axis.name in names:
        axis = replace(axis, name=axis.name + "'")
    return axis


def rename_index(index: Index, mapping: Mapping[Axis, Axis]) -> Index:
    """An index with axes renamed."""
    terms = [
        (mapping.get(t, t) if isinstance(t, Axis) else rename_node(t, mapping), c)
        for t, c in index.terms
    ]
    return affine(terms, index.offset)


def rename_node(node: Node, mapping: Mapping[Axis, Axis]) -> Node:
    """An ir node with its free axes renamed; binders that would capture a new name are renamed
    themselves.
    """
    moved = {a: b for a, b in mapping.items() if a in node.axes_free and a != b}
    if not moved:
        return node
    match node:
        case Iota(axis, sort):
            return Iota(moved[axis], sort)
        case Load(tensor, index, guard, fill):
            guards = tuple(Within(rename_index(g.index, moved), g.low, g.high) for g in guard)
            return Load(tensor, tuple(rename_index(x, moved) for x in index), guards, fill)
        case Pointwise(op, args, parameter):
            return Pointwise(op, tuple(rename_node(a, moved) for a in args), parameter)
        case Reduce(monoid, axes, body, precision, index_sort):
            bound = _bound_names(axes, frozenset(body.axes_free), moved)
            body = rename_node(body, {**moved, **bound})
            return Reduce(monoid, tuple(bound.get(a, a) for a in axes), body, precision, index_sort)
        case _:
            raise AssertionError(f"{type(node).__name__} nodes do not occur in programs")


def _bound_names(
    axes: tuple[Axis, ...], free: frozenset[Axis], moved: Mapping[Axis, Axis]
) -> dict[Axis, Axis]:
    """New names for those bound axes that a renamed axis would fall under."""
    targets = set(moved.values())
    taken = set(free) | targets | set(axes)
    bound: dict[Axis, Axis] = {}
    for axis in axes:
        if axis.name in {t.name for t in targets}:
            bound[axis] = fresh(axis, taken)
            taken.add(bound[axis])
    return bound


def rename(graph: EGraph, identifier: int, mapping: Mapping[Axis, Axis]) -> int:
    """The class of a term with free axes renamed, made from the class's founder."""
    memo: dict[tuple[int, tuple[tuple[Axis, Axis], ...]], int] = {}
    language = graph.language
    assert isinstance(language, TensorLanguage)

    def walk(here: int, moved: Mapping[Axis, Axis]) -> int:
        here = graph.find(here)
        free = graph.facts(here).free
        moved = {a: b for a, b in sorted(moved.items()) if a in free and a != b}
        if not moved:
            return here
        key = (here, tuple(moved.items()))
        if key not in memo:
            memo[key] = build(here, moved)
        return memo[key]

    def build(here: int, moved: Mapping[Axis, Axis]) -> int:
        node = graph.founder[here]
        head, children = node[0], node[1:]
        match head[0]:
            case "load":
                return graph.add((("load", rename_node(head[1], moved)),))
            case "iota":
                return graph.add((("iota", moved[head[1]], head[2]),))
            case "sum":
                terms = zip(children, head[2], strict=True)
                return normal.add_sum(graph, head[1], [(walk(x, moved), c) for x, c in terms])
            case "prod":
                factors = zip(children, head[1], strict=True)
                return normal.add_product(graph, [(walk(x, moved), e) for x, e in factors])
            case "reduce":
                monoid, index_sort = head[1], head[3]
                axes: tuple[Axis, ...] = head[2]
                bound = _bound_names(axes, graph.facts(children[0]).free, moved)
                body = walk(
                    children[0], {**{a: b for a, b in moved.items() if a not in axes}, **bound}
                )
                outer, language.precision = language.precision, graph.facts(here).precision
                found = normal.add_reduce(
                    graph, monoid, tuple(bound.get(a, a) for a in axes), body, index_sort
                )
                language.precision = outer
                return found
            case _:
                return normal.add_operator(
                    graph, head[1], [walk(x, moved) for x in children], head[2]
                )

    return walk(identifier, mapping)
