"""What a summand is made of: its factors, and which of them meet in a contraction.

In: the body of a sum and the axes it is summed over. Out: `Sides`, two groups of factors whose
product over the summed axes is a matrix product, or None. This is the one definition of a matrix
product: emitters, closed forms, the model of XLA and the counting interpreter all ask here.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Tensor, at
>>> i, j, k = Axis("i", 4), Axis("j", 4), Axis("k", 8)
>>> x = Load(Tensor("x", (4, 8), "float16"), (at(i), at(k)))
>>> w = Load(Tensor("w", (8, 4), "float16"), (at(k), at(j)))
>>> found = sides(factors(Pointwise("mul", (x, w))), frozenset({k}))
>>> [a.name for a in found.m], [a.name for a in found.k], [a.name for a in found.n], found.batch
(['i'], ['k'], ['j'], ())
>>> sides(factors(Pointwise("mul", (x, x))), frozenset({k})) is None
True
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from prism_jax.ir.nodes import REAL, Axis, Node, Pointwise

__all__ = ["Sides", "factors", "movable", "product_of", "sides"]


@dataclass(frozen=True)
class Sides:
    """A matrix product: sum over `k` of (product of `left`) * (product of `right`).

    `left` has the free axes `batch + m + k`, `right` has `batch + k + n`; `rest` are factors
    without a summed axis, which multiply the sum. All axes are sorted by name.
    """

    left: tuple[Node, ...]
    right: tuple[Node, ...]
    rest: tuple[Node, ...]
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    k: tuple[Axis, ...]
    n: tuple[Axis, ...]

    @property
    def swapped(self) -> Sides:
        """The same product with its sides exchanged."""
        return Sides(self.right, self.left, self.rest, self.batch, self.n, self.k, self.m)


def factors(node: Node, summed: frozenset[Axis] | None = None) -> tuple[Node, ...]:
    """The factors of nested products, from left to right; a factor may occur twice. With `summed`,
    a product that no summed axis enters is one factor.
    """
    if not (isinstance(node, Pointwise) and node.op == "mul"):
        return (node,)
    if summed is not None and summed.isdisjoint(node.axes_free):
        return (node,)
    left, right = node.args
    return (*factors(left, summed), *factors(right, summed))


@functools.lru_cache(maxsize=8192)
def product_of(monoid: str, body: Node, summed: tuple[Axis, ...]) -> Sides | None:
    """The matrix product that a reduction of `body` over `summed` is, or None."""
    if monoid != "sum" or body.sort != REAL:
        return None
    if not (isinstance(body, Pointwise) and body.op == "mul"):
        return None
    gone = frozenset(summed)
    return sides(factors(body, gone), gone)


def sides(
    terms: Sequence[Node], summed: frozenset[Axis], ignored: frozenset[Axis] = frozenset()
) -> Sides | None:
    """The factors as a matrix product over `summed`, or None where they are none.

    Axes in `ignored` (one element wide here) are no axes. Both sides have every summed axis that
    any factor has, each side has an axis of its own, and the side with the first factor is the
    left one.
    """

    def axes(node: Node) -> frozenset[Axis]:
        return frozenset(node.axes_free) - ignored

    inner = [t for t in terms if axes(t) & summed]
    rest = tuple(t for t in terms if not axes(t) & summed)
    if len(inner) < 2:
        return None
    # An axis in every factor may be a batch axis; the others tie the factors that share them.
    everywhere = frozenset.intersection(*(axes(t) for t in inner)) - summed
    groups: list[tuple[set[Axis], list[Node]]] = []
    for term in inner:
        own = set(axes(term) - summed - everywhere)
        joined = [g for g in groups if g[0] & own]
        merged: tuple[set[Axis], list[Node]] = (own, [term])
        for group in joined:
            merged = (merged[0] | group[0], group[1] + merged[1])
            groups.remove(group)
        groups.append(merged)
    free = [g for g in groups if g[0]]
    if len(free) < 2:
        return None
    first = min(free, key=lambda g: min(inner.index(t) for t in g[1]))
    left_terms = set(first[1])
    left = tuple(t for t in inner if t in left_terms)
    right = tuple(t for t in inner if t not in left_terms)
    k = frozenset.union(*(axes(t) for t in inner)) & summed
    for side in (left, right):
        if not k <= frozenset.union(*(axes(t) for t in side)):
            return None
    m = frozenset(first[0])
    n = frozenset.union(*(axes(t) for t in right)) - summed - everywhere
    if m & n:
        return None

    def in_order(found: frozenset[Axis]) -> tuple[Axis, ...]:
        return tuple(sorted(found))

    return Sides(left, right, rest, *map(in_order, (everywhere, m, k, n)))


def movable(found: Sides, ignored: frozenset[Axis] = frozenset()) -> list[tuple[Node, bool]]:
    """The factors of the result that could be factors of one side's operand, and whether that is
    the left one: those that vary along axes that only this side has. `ignored` as for `sides`.

    >>> from prism_jax.ir.nodes import Load, Tensor, at
    >>> i, j, k = Axis("i", 4), Axis("j", 4), Axis("k", 8)
    >>> x = Load(Tensor("x", (4, 8), "float16"), (at(i), at(k)))
    >>> w = Load(Tensor("w", (8, 4), "float16"), (at(k), at(j)))
    >>> r = Load(Tensor("r", (4,), "float32"), (at(j),))
    >>> whole = sides((x, w, r), frozenset({k}))
    >>> [(str(node.tensor.name), left) for node, left in movable(whole)]
    [('r', False)]
    """
    places: list[tuple[Node, bool]] = []
    for node in found.rest:
        own = frozenset(node.axes_free) - ignored - frozenset(found.batch)
        for axes, left in ((found.m, True), (found.n, False)):
            if own and own <= frozenset(axes):
                places.append((node, left))
    return places
