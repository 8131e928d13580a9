"""What one float64 evaluation of a program takes: operations, and elements that are alive.

In: a program (for the contract: that of the sampled elements). Out: a `Work`. Products under a
contraction are not built by any evaluator, so they are counted as the multiply-adds they are; all
else is counted by the element.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Reduce, Store, Tensor, at
>>> i, j, k = Axis("i", 8), Axis("j", 4), Axis("k", 16)
>>> x, w = Tensor("x", (8, 16), "float16"), Tensor("w", (16, 4), "float16")
>>> product = Pointwise("mul", (Load(x, (at(i), at(k))), Load(w, (at(k), at(j)))))
>>> y = Store(Tensor("y", (8, 4), "float16"), (at(i), at(j)), Reduce("sum", (k,), product))
>>> work(Program("linear", (x, w), (y,)))
Work(products=512, elements=192, alive=256)
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from prism_jax.device import cores
from prism_jax.ir.nodes import Axis, Load, Node, Pointwise, Reduce
from prism_jax.ir.product import factors
from prism_jax.ir.program import Program


@dataclass(frozen=True)
class Work:
    """`products`: multiply-adds of contractions; `elements`: all other operations on elements;
    `alive`: at most so many elements exist together where an evaluator fuses what it can.
    """

    products: int
    elements: int
    alive: int

    def seconds(self, products: float, elements: float) -> float:
        """The time it takes, given how many of either are done in a second."""
        return self.products / products + self.elements / elements


def work(program: Program) -> Work:
    """The work of one evaluation of all outputs."""
    parts = {n: _parts(n) for n in program.nodes if isinstance(n, Reduce)}
    hidden = {p for n, found in parts.items() if found for p in _products(n.body, found)}
    operands = {f for found in parts.values() for f in found}
    uses = Counter(child for node in program.nodes for child in node.children)
    products = elements = alive = 0
    for node in program.nodes:
        if node in hidden:
            continue
        made = _count(node.axes_free)
        if isinstance(node, Reduce):
            inside = _count({*node.body.axes_free, *node.axes})
            if parts[node]:
                products += inside
            else:
                elements += inside
            alive += made
        else:
            elements += made
            if isinstance(node, Load) or node in operands or uses[node] > 1:
                alive += made
    return Work(products, elements, alive + sum(_count_of(s.tensor.shape) for s in program.outputs))


def _parts(node: Reduce) -> tuple[Node, ...]:
    """The factors of a contraction; nothing where the reduction is none."""
    if node.monoid != "sum" or node.sort == "bool":
        return ()
    found = factors(node.body, frozenset(node.axes))
    return found if len({f.axes_free for f in found}) > 1 else ()


def _products(node: Node, parts: tuple[Node, ...]) -> list[Node]:
    """The products between a contraction and its factors."""
    if node in parts or not isinstance(node, Pointwise):
        return []
    return [node, *(n for child in node.args for n in _products(child, parts))]


def _count(axes: Iterable[Axis]) -> int:
    return _count_of([a.size for a in axes])


def _count_of(shape: Iterable[int | str]) -> int:
    return math.prod(int(s) for s in shape)


def evaluators(effort: Work, most: int) -> int:
    """How many evaluations numpy may make at once, up to `most`: each on a processor of its own,
    and together in half of the machine's memory. numpy frees late, so twice as much is alive.
    """
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1
    fit = memory // 2 // max(1, 2 * 8 * effort.alive)
    return max(1, min(cores(), most, fit))
