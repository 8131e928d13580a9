"""Axioms as rules of the e-graph: matching n-ary patterns with segments, and building right sides.

In: an axiom of level "search". Out: a `AxiomRule` for `run.saturate`. A segment takes the elements
that satisfy the conditions on it, the segment without conditions takes the rest, single terms are
tried in order; so a row has few matches per node and none of them needs commutativity or
associativity as rules.

A reduction made by a match inherits the strictest precision record of the reductions that the match
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from prism_jax.axioms.axiom import Axiom, Condition
from prism_jax.egraph import normal
from prism_jax.egraph.contraction import least_work
from prism_jax.egraph.core import EGraph, ENode, changed
from prism_jax.egraph.decisions import extent
from prism_jax.egraph.facts import strictest
from prism_jax.egraph.instances import (
    Bindings,
    Builder,
    Matcher,
    depth,
    element_facts,
    root_kind,
)
from prism_jax.egraph.normal import TensorLanguage
from prism_jax.ir.nodes import Axis, Precision

Match = tuple[int, tuple[tuple[str, Any], ...]]


class AxiomRule:
    """One axiom, left to right. Holds the matches already applied, so make one per saturation."""

    def __init__(self, axiom: Axiom) -> None:
        self.axiom = axiom
        self.name = axiom.name
        self._depth = depth(axiom.left)
        self._kind = root_kind(axiom.left)
        self._seen: set[Any] = set()
        self._first = any(w.what == "first" for w in axiom.wishes)
        self._late = [w for w in axiom.wishes if w.what in ("pays", "like")]
        self._claims: dict[str, list[Condition]] = {}
        for condition in axiom.conditions:
            self._claims.setdefault(condition.subject, []).append(condition)

    def search(self, graph: EGraph, since: int) -> list[Match]:
        """Matches whose neighbourhood changed after `since` and that were not found before."""
        found: list[Match] = []
        for root in changed(graph, since, self._depth):
            for node in graph.nodes(root, self._kind):
                for bindings in self._at(graph, node):
                    match = (root, tuple(sorted(bindings.items(), key=lambda item: item[0])))
                    if match not in self._seen:
                        self._seen.add(match)
                        found.append(match)
        return found

    def apply(self, graph: EGraph, match: Match) -> None:
        """Adds the right side to the root's class."""
        root, bindings = match[0], dict(match[1])
        language = graph.language
        assert isinstance(language, TensorLanguage)
        language.precision = _inherited(graph, bindings.get("#", ()))
        result = Builder(graph, self.axiom, bindings).term(self.axiom.right)
        language.precision = None
        if graph.find(result) != graph.find(root):
            graph.union(root, result)

    def translate(self, match: Match, copy: Callable[[int], int]) -> Bindings:
        """The bindings of a match in another graph, where `copy` gives the class of a class."""
        kinds, result = self.axiom.kinds, dict(match[1])
        for name, value in result.items():
            if kinds.get(name) == "term":
                result[name] = copy(value)
            elif kinds.get(name) == "segment":
                result[name] = tuple((copy(x), c) for x, c in value)
        result["#"] = tuple(copy(x) for x in result.get("#", ()))
        return result

    def replay(self, graph: EGraph, bound: Bindings) -> None:
        """Adds one instance of the axiom, both sides, if its conditions hold. Raises ValueError if
        they do not.
        """
        for condition in self.axiom.conditions:
            value = bound[condition.subject]
            kind = self.axiom.kinds[condition.subject]
            if kind == "number":
                holds = condition.holds_number(value)
            else:
                elements: list[tuple[int, Fraction | None]]
                elements = [(value, None)] if kind == "term" else list(value)
                known = [element_facts(graph, self.axiom, condition.subject, *x) for x in elements]
                holds = all(condition.holds(facts, bound) for facts in known)
            if not holds:
                raise ValueError(f"{self.name}: {condition.text} does not hold")
        build = Builder(graph, self.axiom, bound).term
        graph.union(build(self.axiom.left), build(self.axiom.right))

    def describe(self, match: Match, term: Callable[[int], str]) -> str:
        """The bindings of a match as text."""
        texts: list[str] = []
        for name, value in match[1]:
            kind = self.axiom.kinds.get(name)
            if kind == "term":
                texts.append(f"{name} = {term(value)}")
            elif kind == "segment":
                texts.append(f"{name}... = [{', '.join(term(x) for x, _ in value)}]")
            elif kind == "axes":
                texts.append(f"{name} = {{{', '.join(a.name for a in value)}}}")
            elif kind == "number":
                texts.append(f"{name} = {value}")
        return ", ".join(texts)

    def _at(self, graph: EGraph, node: ENode) -> Iterator[Bindings]:
        matcher = Matcher(graph, self.axiom, self._claims)
        taken: set[Any] = set()
        for bindings in matcher.node(self.axiom.left, node, {}):
            if not self._numbers_hold(bindings):
                continue
            if not all(self._late_holds(graph, wish, bindings) for wish in self._late):
                continue
            if self._first:
                # one choice per place: the rest of the node stays the same
                key = tuple(
                    (k, v) for k, v in bindings.items() if self.axiom.kinds.get(k) == "axes"
                )
                if key in taken:
                    continue
                taken.add(key)
            yield bindings

    def _late_holds(self, graph: EGraph, wish: Condition, bound: Bindings) -> bool:
        """Wishes that look at more than one variable."""
        term = bound[wish.subject]
        if wish.what == "like":
            return graph.facts(term).free == graph.facts(bound[str(wish.other)]).free
        axes = next(v for k, v in bound.items() if self.axiom.kinds.get(k) == "axes")
        around = [
            pair
            for k, v in bound.items()
            if self.axiom.kinds.get(k) == "segment" and k not in self.axiom.sums
            for pair in v
        ]
        rest = frozenset[Axis]().union(
            *(graph.facts(x).free for k in self.axiom.sums for x, _ in bound[k])
        )
        whole = extent(
            rest.union(axes, graph.facts(term).free, *(graph.facts(x).free for x, _ in around))
        )
        part = least_work(graph, axes, [*around, *normal.factors_of(graph, term)])
        if 4 * part <= whole:
            return True
        alone = [
            node
            for x, e in normal.factors_of(graph, term)
            if e == 1
            for node in graph.nodes(x, "reduce")
        ]
        return any(
            part <= least_work(graph, node[0][2], normal.factors_of(graph, node[1]))
            for node in alone
        )

    def _numbers_hold(self, bindings: Bindings) -> bool:
        for name, conditions in self._claims.items():
            if self.axiom.kinds[name] == "number" and not all(
                c.holds_number(bindings[name]) for c in conditions
            ):
                return False
        return True


def _inherited(graph: EGraph, reductions: tuple[int, ...]) -> Precision | None:
    found: Precision | None = None
    for identifier in reductions:
        found = strictest(found, graph.facts(identifier).precision)
    return found
