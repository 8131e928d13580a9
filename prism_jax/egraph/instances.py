"""Patterns of axioms against the e-graph: finding instances (`Matcher`) and building them
(`Builder`).

In: a pattern, a class or node, what is bound so far. Out: bindings, or the class of the instance. A
segment takes the elements that satisfy the conditions on it, the segment without conditions takes
the rest, single terms are tried in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from prism_jax.axioms import pattern as pt
from prism_jax.axioms.axiom import Axiom, Condition
from prism_jax.egraph import facts as fx
from prism_jax.egraph import normal
from prism_jax.egraph.core import EGraph, ENode
from prism_jax.egraph.decisions import exactly
from prism_jax.egraph.facts import Facts
from prism_jax.egraph.normal import Term
from prism_jax.ir.nodes import REAL, Axis

Bindings = dict[str, Any]
"""Terms: class ids; segments: tuples of `Term`; numbers: fractions; axes: tuples of axes. ``#``
holds the reductions met, ``#index`` the sort of their indices if they give indices.
"""


def depth(pattern: pt.Pattern) -> int:
    """How many e-nodes deep a pattern reaches below its root."""
    below: list[pt.Pattern] = []
    if isinstance(pattern, pt.Sum):
        below = [x for _, x in pattern.items]
    elif isinstance(pattern, pt.Prod):
        below = [x for x, _ in pattern.items]
    elif isinstance(pattern, pt.Op):
        below = list(pattern.args)
    elif isinstance(pattern, pt.Red):
        below = [pattern.body]
    return 1 + max(map(depth, below)) if below else 0


def root_kind(pattern: pt.Pattern) -> str:
    """The kind of e-node that a pattern looks for. Raises PatternError if it matches every kind."""
    match pattern:
        case pt.Sum():
            return "sum"
        case pt.Prod():
            return "prod"
        case pt.Op():
            return "op"
        case pt.Red():
            return "reduce"
        case _:
            raise pt.PatternError(f"{pattern} matches everything: no rule can look for it")


def element_facts(
    graph: EGraph, axiom: Axiom, name: str, identifier: int, number: Fraction | None
) -> Facts:
    """What conditions on a name are asked of: a term's facts, a segment's factor with its power, or
    its term with its coefficient.
    """
    known: Facts = graph.facts(identifier)
    if number is None:
        return known
    if name in axiom.sums:
        return fx.of_sum(Fraction(0), [(known, number)])
    return fx.of_power(known, number)


class Matcher:
    """Backtracking over one node; bindings are copied at each choice."""

    def __init__(self, graph: EGraph, axiom: Axiom, claims: Mapping[str, list[Condition]]) -> None:
        self.graph, self.axiom, self.claims = graph, axiom, claims
        self.sums = axiom.sums
        self.wishes = [g for g in axiom.alternatives if g[0].what in ("narrower", "contraction")]

    def term(
        self, pattern: pt.Pattern, identifier: int, bound: Bindings, built: bool = False
    ) -> Iterator[Bindings]:
        """All ways in which a class is an instance of a pattern; with `built`, a sum must have been
        built as one.
        """
        graph = self.graph
        identifier = graph.find(identifier)
        if isinstance(pattern, pt.Var):
            if pattern.name in bound:
                if bound[pattern.name] == identifier:
                    yield bound
            elif self._holds(pattern.name, graph.facts(identifier), bound):
                yield {**bound, pattern.name: identifier}
            return
        if isinstance(pattern, pt.Seg):
            # alone in a body or an argument: the whole class as one sum or product
            one = (identifier, Fraction(1))
            if pattern.name in self.sums:
                yield from self._segments([one], [pattern.name], bound)
            else:
                yield from self._segments(
                    normal.factors_of(graph, identifier), [pattern.name], bound
                )
            return
        if isinstance(pattern, pt.Num):
            if graph.facts(identifier).constant == pattern.value:
                yield bound
            return
        kind = root_kind(pattern)
        if kind != "sum" or not built or graph.founder[identifier][0][0] == "sum":
            for node in graph.nodes(identifier, kind):
                yield from self.node(pattern, node, bound)
        if isinstance(pattern, pt.Prod) and graph.facts(identifier).sort == REAL:
            yield from self._elements(
                _product_items(pattern), [(identifier, Fraction(1))], bound, None
            )

    def node(self, pattern: pt.Pattern, node: ENode, bound: Bindings) -> Iterator[Bindings]:
        """All ways in which a node is an instance of a pattern of its kind."""
        head = node[0]
        find = self.graph.find
        match pattern:
            case pt.Red(monoid, (axes,), body):
                if head[1] != monoid or bound.get(axes, head[2]) != head[2]:
                    return
                if head[3] is not None:
                    bound = {**bound, "#index": head[3]}
                owner = self.graph.lookup(node)
                met = (*bound.get("#", ()), *([owner] if owner is not None else []))
                yield from self.term(body, node[1], {**bound, axes: head[2], "#": met})
            case pt.Op(name, args):
                if head[1] != name or head[2] is not None or len(node) - 1 != len(args):
                    return
                yield from self._arguments(args, node[1:], bound)
            case pt.Sum():
                terms = [(find(x), c) for x, c in zip(node[1:], head[2], strict=True)]
                if head[1] != 0:
                    one = self.graph.lookup((("sum", Fraction(1), ()),))
                    if one is None:
                        return
                    terms.append((one, head[1]))
                free = frozenset[Axis]().union(*(self.graph.facts(x).free for x, _ in terms))
                items = [(x, c) for c, x in pattern.items]
                yield from self._elements(items, terms, bound, free)
            case pt.Prod():
                factors = [(find(x), e) for x, e in zip(node[1:], head[1], strict=True)]
                yield from self._elements(_product_items(pattern), factors, bound, None)
            case _:
                return

    def _arguments(
        self, patterns: tuple[pt.Pattern, ...], ids: tuple[int, ...], bound: Bindings
    ) -> Iterator[Bindings]:
        if not patterns:
            yield bound
            return
        for found in self.term(patterns[0], ids[0], bound):
            yield from self._arguments(patterns[1:], ids[1:], found)

    def _elements(
        self,
        items: list[tuple[pt.Pattern, pt.Num]],
        elements: list[Term],
        bound: Bindings,
        sum_axes: frozenset[Axis] | None,
    ) -> Iterator[Bindings]:
        """Matches the elements of one sum (with its axes) or product against pattern items."""
        segments = [x.name for x, _ in items if isinstance(x, pt.Seg)]
        single = [item for item in items if not isinstance(item[0], pt.Seg)]
        if len(single) > len(elements) or (not segments and len(single) != len(elements)):
            return
        yield from self._singles(single, elements, segments, bound, sum_axes)

    def _singles(
        self,
        single: list[tuple[pt.Pattern, pt.Num]],
        elements: list[Term],
        segments: list[str],
        bound: Bindings,
        sum_axes: frozenset[Axis] | None,
    ) -> Iterator[Bindings]:
        if not single:
            yield from self._segments(elements, segments, bound)
            return
        (pattern, number), rest = single[0], single[1:]
        for place, (child, value) in enumerate(elements):
            with_number = _bind_number(number, value, bound)
            if with_number is None:
                continue
            if isinstance(pattern, pt.Var) and not self._wished(pattern.name, child, sum_axes):
                continue
            others = elements[:place] + elements[place + 1 :]
            # A sum that is a factor must have been built as a sum: going through every sum that a
            # class got later multiplies distributions by each other (a product of distributed
            # projections in attention).
            for found in self.term(pattern, child, with_number, built=sum_axes is None):
                yield from self._singles(rest, others, segments, found, sum_axes)

    def _segments(
        self, elements: list[Term], names: list[str], bound: Bindings
    ) -> Iterator[Bindings]:
        """Gives every element to the first segment that claims it; claimed segments must not be
        empty.
        """
        groups: dict[str, list[Term]] = {name: [] for name in names}
        for element in elements:
            for name in sorted(names, key=lambda n: n not in self.claims):
                if self._holds(name, element_facts(self.graph, self.axiom, name, *element), bound):
                    groups[name].append(element)
                    break
            else:
                return
        result = dict(bound)
        for name, group in groups.items():
            value = tuple(group)
            if result.get(name, value) != value or (not value and name in self.claims):
                return
            if not value and self._must_fill(name, names):
                return
            result[name] = value
        yield result

    def _must_fill(self, name: str, names: list[str]) -> bool:
        """A row whose segments are all claimed but one would be trivial if that one stayed empty;
        so would a common factor.
        """
        others = [n for n in names if n != name]
        trivial = bool(others) and all(n in self.claims for n in others)
        return trivial or (self.axiom.name in ("factor", "factor-product") and name == "a")

    def _holds(self, name: str, facts: Facts, bound: Bindings) -> bool:
        return all(c.holds(facts, bound) for c in self.claims.get(name, ()))

    def _wished(self, name: str, identifier: int, sum_axes: frozenset[Axis] | None) -> bool:
        groups = [group for group in self.wishes if group[0].subject == name]
        return all(any(self._fulfils(w, identifier, sum_axes) for w in group) for group in groups)

    def _fulfils(self, wish: Condition, identifier: int, sum_axes: frozenset[Axis] | None) -> bool:
        if wish.what == "narrower":
            return sum_axes is not None and self.graph.facts(identifier).free < sum_axes
        parts = [x for x, e in normal.factors_of(self.graph, identifier) if e == 1]
        return any(node[0][1] == "sum" for x in parts for node in self.graph.nodes(x, "reduce"))


def _product_items(pattern: pt.Prod) -> list[tuple[pt.Pattern, pt.Num]]:
    return list(pattern.items)


def _bind_number(number: pt.Num, value: Fraction, bound: Bindings) -> Bindings | None:
    """Solves ``number = value`` for at most one unbound name."""
    known, unknown = number.value, list[str]()
    for name in number.names:
        if name in bound:
            known *= bound[name]
        else:
            unknown.append(name)
    if not unknown:
        return bound if known == value else None
    if len(unknown) > 1 or known == 0:
        return None
    return {**bound, unknown[0]: value / known}


class Builder:
    """Builds the right side of an axiom from bindings, in normal form."""

    def __init__(self, graph: EGraph, axiom: Axiom, bound: Bindings) -> None:
        self.graph, self.bound, self.sums = graph, bound, axiom.sums

    def number(self, number: pt.Num) -> Fraction:
        value = number.value
        for name in number.names:
            if name.startswith("size:"):
                exactly(self.bound[name[5:]])
                for axis in self.bound[name[5:]]:
                    value *= int(axis.size)
            else:
                value *= self.bound[name]
        return value

    def term(self, pattern: pt.Pattern) -> int:
        graph = self.graph
        match pattern:
            case pt.Var(name):
                return graph.find(self.bound[name])
            case pt.Seg(name):
                pairs = self.bound[name]
                if name in self.sums:
                    return normal.add_sum(graph, Fraction(0), pairs)
                return normal.add_product(graph, pairs)
            case pt.Num():
                return normal.add_number(graph, self.number(pattern))
            case pt.Sum(items):
                plain = [(self.term(x), self.number(c)) for c, x in items if _loose(x)]
                kept = [(self.term(x), self.number(c)) for c, x in items if not _loose(x)]
                return normal.add_sum(graph, Fraction(0), plain, kept)
            case pt.Prod(items):
                plain = [
                    (self.term(x), self.number(e)) for x, e in items if _loose(x) or e != pt.ONE
                ]
                kept = [self.term(x) for x, e in items if not _loose(x) and e == pt.ONE]
                return normal.add_product(graph, plain, kept)
            case pt.Op(name, args):
                return normal.add_operator(graph, name, [self.term(x) for x in args])
            case pt.Red(monoid, axes, body):
                bound = [axis for name in axes for axis in self.bound[name]]
                index = self.bound.get("#index") if monoid in ("argmax", "argmin") else None
                return normal.add_reduce(graph, monoid, bound, self.term(body), index)


def _loose(item: pt.Pattern) -> bool:
    """Whether an item of a right side is a name, which flattens into what it stands in, rather than
    a part that the row made.
    """
    return isinstance(item, pt.Var | pt.Seg | pt.Num)
