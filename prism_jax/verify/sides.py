"""On which side of the pair of fields roots are taken: the condition of a strict draw, no wider.

In: the terms of a program and of an sGraph. Out: the sides ("p", "q") on which a root's value can
reach an output. Outputs are compared modulo p; exp takes its argument from the side q to the side
p, log the other way. A root that stands only below an exponential (a norm inside a softmax) needs
to be of a square modulo q only, which halves the conditions a draw must meet.

>>> from prism_jax.ir.nodes import Axis, Store, Tensor, at
>>> from prism_jax.ir.program import Program
>>> from prism_jax.verify.shrink import as_sgraph
>>> i = Axis("i", 4)
>>> x, y = Tensor("x", (4,), "float32"), Tensor("y", (4,), "float32")
>>> root = Pointwise("sqrt", (Load(x, (at(i),)),))
>>> sorted(sides(as_sgraph(Program("e", (x,), (Store(y, (at(i),), Pointwise("exp", (root,))),)))))
['q']
"""

from __future__ import annotations

from collections.abc import Iterator

from prism_jax.ir.nodes import Carried, Load, Node, Pointwise
from prism_jax.ir.sgraph import Kernel, SGraph

_ROOTS = ("sqrt", "rsqrt", "pow")
_TO_Q = ("exp", "exp2", "expm1", "logistic", "tanh")
_TO_P = ("log", "log1p")


def sides(graph: SGraph, logs: bool = False) -> frozenset[str]:
    """The sides on which some root of the sGraph is needed; `logs`: outputs may lack the side p."""
    made: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for store in node.all_stores if isinstance(node, Kernel) else node.stores:
            made.setdefault(f"tensor {store.tensor.name}", []).append(store.value)
        if isinstance(node, Kernel):
            for loop in node.all_loops:
                for acc in loop.accumulators:
                    terms = [t for t in (acc.summand, acc.rescale) if t is not None]
                    made.setdefault(f"accumulator {acc.name}", []).extend(terms)
    found: set[str] = set()
    seen: set[tuple[Node, str]] = set()
    stack = [
        (term, side)
        for output in graph.outputs
        for term in made.get(f"tensor {output.name}", [])
        for side in ("pq" if logs else "p")
    ]
    while stack:
        node, side = stack.pop()
        if (node, side) in seen:
            continue
        seen.add((node, side))
        if isinstance(node, Pointwise) and node.op in _ROOTS:
            found.add(side)
        stack += _below(node, side, made)
    return frozenset(found)


def _below(node: Node, side: str, made: dict[str, list[Node]]) -> Iterator[tuple[Node, str]]:
    if isinstance(node, Load):
        yield from ((t, side) for t in made.get(f"tensor {node.tensor.name}", []))
    elif isinstance(node, Carried):
        yield from ((t, side) for t in made.get(f"accumulator {node.accumulator}", []))
    elif isinstance(node, Pointwise) and node.op in _TO_Q + _TO_P:
        yield from ((a, "q" if node.op in _TO_Q else "p") for a in node.args)
        return
    yield from ((c, side) for c in node.children)
