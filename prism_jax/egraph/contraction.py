"""Orders of contraction: nested sums of products are merged into one, and a dynamic program over
its factors finds the orders worth having, which are added to the e-graph.

In: a class that holds a sum over axes of a product. Out: for the merged contraction, every order
that no other order beats in both arithmetic and the size of what must be kept in between (a small
Pareto front), as classes. Saturating with associativity would find the same orders and all the bad
ones.

Axioms used: the rows of level "order" (sum-merge, sum-interchange, sum-nest, sum-of-product) and
"hoist".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from prism_jax.egraph import normal
from prism_jax.egraph.core import EGraph, ENode, changed
from prism_jax.egraph.decisions import extent, recorded
from prism_jax.egraph.facts import strictest
from prism_jax.egraph.language import fresh, rename
from prism_jax.egraph.normal import TensorLanguage, Term
from prism_jax.ir.nodes import REAL, Axis, Precision

MAX_FACTORS = 8
"""Above this a nested contraction stays nested: the program below is exponential in the number of
factors.
"""
FRONT = 3
"""Orders kept per set of factors."""
SLACK = 1.5
"""An order that keeps less in between may take this much more arithmetic than the least."""


@dataclass(frozen=True)
class Merged:
    """A sum over `axes` of the product of `factors`."""

    axes: tuple[Axis, ...]
    factors: tuple[Term, ...]
    precision: Precision | None


def merge(graph: EGraph, node: ENode) -> Merged:
    """A contraction node with the contractions among its factors merged into it, clashing binders
    renamed.
    """
    axes, factors = list(node[0][2]), _factors(graph, node[1])
    owner = graph.lookup(node)
    precision = graph.facts(owner).precision if owner is not None else None
    place = 0
    while place < len(factors):
        child, e = factors[place]
        inner = _contraction(graph, child) if e == 1 else None
        if inner is None or len(factors) + len(_factors(graph, inner[1])) - 1 > MAX_FACTORS:
            place += 1
            continue
        precision = strictest(precision, graph.facts(child).precision)
        others = factors[:place] + factors[place + 1 :]
        taken = set(axes).union(*(graph.facts(x).free for x, _ in others), graph.facts(child).free)
        renamed: dict[Axis, Axis] = {}
        for axis in inner[0][2]:
            if axis.name in {t.name for t in taken}:
                renamed[axis] = fresh(axis, taken | set(inner[0][2]))
            taken.add(renamed.get(axis, axis))
        body = _factors(graph, inner[1])
        if renamed:
            body = [(rename(graph, x, renamed), d) for x, d in body]
        axes += [renamed.get(axis, axis) for axis in inner[0][2]]
        factors[place : place + 1] = body
    return Merged(tuple(sorted(axes)), tuple(sorted(factors)), precision)


def _factors(graph: EGraph, body: int) -> list[Term]:
    """The body of a sum as a product: as it was built, or by a product node that its class got
    later.
    """
    found = normal.factors_of(graph, body)
    if len(found) == 1 and found[0] == (graph.find(body), 1):
        for node in graph.nodes(body, "prod"):
            return [(graph.find(x), e) for x, e in zip(node[1:], node[0][1], strict=True)]
    return found


def _contraction(graph: EGraph, identifier: int) -> ENode | None:
    """The sum over axes that a class was built as, or the first one that it holds."""
    founder = graph.founder[graph.find(identifier)]
    nodes = graph.nodes(identifier, "reduce")
    if founder[0][0] == "reduce":
        nodes = [founder, *nodes]
    for node in nodes:
        if node[0][1] == "sum" and graph.facts(node[1]).sort == REAL:
            return node
    return None


@dataclass(frozen=True)
class Order:
    """One way to contract a set of factors: arithmetic, elements kept in between, and the two
    halves (0 for a single factor).
    """

    work: int
    kept: int
    left: int
    right: int


class Orders:
    """The Pareto-pruned dynamic program over the free axes of factors; sets of factors are bit
    masks.

    >>> i, k, r, j = Axis("i", 4), Axis("k", 256), Axis("r", 2), Axis("j", 256)
    >>> free = [frozenset(f) for f in ((i, k), (k, r), (r, j))]
    >>> best = Orders(free, frozenset((k, r))).front(0b111)[0]
    >>> bin(best.left), best.work == 4 * 256 * 2 + 4 * 2 * 256
    ('0b11', True)
    """

    def __init__(self, free: list[frozenset[Axis]], summed: frozenset[Axis]) -> None:
        self.free, self.summed = free, summed
        self.everything = (1 << len(free)) - 1
        self.all_axes = cache(self._all_axes)
        self.axes = cache(self._axes)
        self.front = cache(self._front)
        self.extent = cache(extent)

    def _all_axes(self, mask: int) -> frozenset[Axis]:
        return frozenset[Axis]().union(*(f for n, f in enumerate(self.free) if mask >> n & 1))

    def _axes(self, mask: int) -> frozenset[Axis]:
        """The axes that a set of factors still has once those that only it mentions are summed."""
        gone = self.summed - self.all_axes(self.everything & ~mask)
        return self.all_axes(mask) - gone

    def _front(self, mask: int) -> tuple[Order, ...]:
        if mask & (mask - 1) == 0:
            alone = self.all_axes(mask)
            work = self.extent(alone) if self.axes(mask) != alone else 0
            return (Order(work, 0, 0, 0),)
        candidates: list[Order] = []
        lowest = mask & -mask
        left = (mask - 1) & mask
        while left:
            if left & lowest:
                candidates += self._join(left, mask & ~left)
            left = (left - 1) & mask
        return _pareto(candidates)

    def _join(self, left: int, right: int) -> list[Order]:
        work = self.extent(self.axes(left) | self.axes(right))
        kept = sum(self.extent(self.axes(m)) for m in (left, right) if self._sums(m))
        return [
            Order(a.work + b.work + work, a.kept + b.kept + kept, left, right)
            for a in self.front(left)
            for b in self.front(right)
        ]

    def _sums(self, mask: int) -> bool:
        """Whether a proper subset's value is a sum, which has to be kept somewhere; a product need
        not be.
        """
        return self.axes(mask) != self.all_axes(mask)


def least_work(graph: EGraph, axes: tuple[Axis, ...], factors: list[Term]) -> int:
    """The least arithmetic that a sum of products takes, with contractions among its factors
    merged; adds nothing.
    """
    free: list[frozenset[Axis]] = []
    summed = set(axes)
    for child, e in factors:
        inner = _contraction(graph, child) if e == 1 else None
        parts = [] if inner is None else _factors(graph, inner[1])
        if inner is None or len(factors) + len(parts) > MAX_FACTORS:
            free.append(graph.facts(child).free)
            continue
        # names as no program has them, so that binders cannot clash
        inside: tuple[Axis, ...] = inner[0][2]
        bound = {axis: Axis(f"{axis.name}#{len(summed)}", axis.size) for axis in inside}
        summed.update(bound.values())
        for x, _ in parts:
            own: frozenset[Axis] = graph.facts(x).free
            free.append(frozenset(bound.get(a, a) for a in own))
    if len(free) > MAX_FACTORS or not free:
        return extent(frozenset[Axis]().union(*free))
    find = _least.__wrapped__ if recorded() else _least
    return find(tuple(free), frozenset(summed))


@lru_cache(4096)
def _least(free: tuple[frozenset[Axis], ...], summed: frozenset[Axis]) -> int:
    orders = Orders(list(free), summed)
    return orders.front(orders.everything)[0].work


class _Builder:
    """Adds the orders of a merged contraction to the graph."""

    def __init__(self, graph: EGraph, merged: Merged) -> None:
        self.graph, self.merged = graph, merged
        free = [frozenset(graph.facts(x).free) for x, _ in merged.factors]
        self.orders = Orders(free, frozenset(merged.axes))
        self._built: dict[int, int] = {}

    def build(self, mask: int) -> int:
        """The class of a set of factors with its own axes summed; every order of the front is added
        to it.
        """
        if mask not in self._built:
            self._built[mask] = self._build(mask)
        return self._built[mask]

    def _build(self, mask: int) -> int:
        graph, orders = self.graph, self.orders
        result: int | None = None
        for order in orders.front(mask):
            if order.left:
                halves = [self.build(order.left), self.build(order.right)]
                body = normal.add_product(graph, [(x, Fraction(1)) for x in halves])
                inside = orders.axes(order.left) | orders.axes(order.right)
            else:
                body = normal.add_product(graph, [self.merged.factors[mask.bit_length() - 1]])
                inside = orders.all_axes(mask)
            found = normal.add_reduce(graph, "sum", inside - orders.axes(mask), body)
            if result is None:
                result = found
            elif graph.find(found) != graph.find(result):
                graph.union(result, found)
        assert result is not None
        return graph.find(result)


def _pareto(candidates: list[Order]) -> tuple[Order, ...]:
    front: list[Order] = []
    for order in sorted(candidates, key=lambda o: (o.work, o.kept, o.left)):
        if front and order.work > SLACK * front[0].work:
            break
        if not front or order.kept < front[-1].kept:
            front.append(order)
    return tuple(front[:FRONT])


class ContractionOrder:
    """The rule for `run.saturate`: contractions whose factors changed are merged and reordered."""

    name = "contraction-order"

    def __init__(self) -> None:
        self._seen: set[ENode] = set()

    def search(self, graph: EGraph, since: int) -> list[tuple[int, ENode]]:
        """Sums over axes of at least two factors that were not reordered before."""
        found: list[tuple[int, ENode]] = []
        for root in changed(graph, since, 3):
            for node in graph.nodes(root, "reduce"):
                if node in self._seen or node[0][1] != "sum" or graph.facts(node[1]).sort != REAL:
                    continue
                self._seen.add(node)
                found.append((root, node))
        return found

    def apply(self, graph: EGraph, match: tuple[int, ENode]) -> None:
        """Adds the orders of one contraction to its class."""
        root, node = match
        merged = merge(graph, node)
        free = frozenset[Axis]().union(*(graph.facts(x).free for x, _ in merged.factors))
        # An axis that its factors have lost since the node was made counts as a multiple, which the
        # normal form of the repaired node holds.
        if not 2 <= len(merged.factors) <= MAX_FACTORS or not free.issuperset(merged.axes):
            return
        language = graph.language
        assert isinstance(language, TensorLanguage)
        language.precision = merged.precision
        builder = _Builder(graph, merged)
        result = builder.build(builder.orders.everything)
        language.precision = None
        if graph.find(result) != graph.find(root):
            graph.union(root, result)

    def translate(self, match: tuple[int, ENode], copy: Callable[[int], int]) -> tuple[int, ENode]:
        """A match in another graph, where `copy` gives the class of a class."""
        node = match[1]
        return copy(match[0]), (node[0], *map(copy, node[1:]))

    def replay(self, graph: EGraph, match: tuple[int, ENode]) -> None:
        """Reorders one contraction again."""
        graph.union(match[0], graph.add(match[1]))
        graph.rebuild()
        canonical = graph.language.canonical(graph, match[1])
        if isinstance(canonical, tuple):
            self.apply(graph, (graph.find(match[0]), canonical))

    def describe(self, match: tuple[int, ENode], term: Callable[[int], str]) -> str:
        """The contraction as text."""
        return term(match[0])
