"""Why two classes are equal: a short list of named rule instances that, and nothing else, makes
their terms equal.

In: a saturated graph and two terms that it holds. Out: an `Explanation`, whose steps are picked
from the graph's history and minimised. `replay` proves it again in a fresh graph that holds only
the two terms: each step adds one instance of its rule (both sides, conditions checked anew),
congruence and the normal form do the rest. What replays is a proof that does not depend on the
search.

>>> from prism_jax.egraph.plain import add_term, rewrite
>>> from prism_jax.egraph.run import saturate
>>> g = EGraph()
>>> a, b = add_term(g, "(+ (f x) y)"), add_term(g, "(+ y (f x))")
>>> rules = [rewrite("commute", "(+ ?a ?b)", "(+ ?b ?a)"), rewrite("twice", "(f ?a)", "(f (f ?a))")]
>>> record = saturate(g, rules)
>>> print(explain(g, a, b))
+(f(x), y) = +(y, f(x)) by
  1. commute: ?a = f(x), ?b = y
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prism_jax.egraph.core import EGraph, Language
from prism_jax.egraph.normal import TensorLanguage

Step = tuple[Any, Any]
"""A rule and one match of it in the graph that is explained."""


@dataclass(frozen=True)
class Explanation:
    """The claim that two classes (as they were added) are equal, and the rule instances that prove
    it.
    """

    graph: EGraph
    left: int
    right: int
    steps: tuple[Step, ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules used, in order."""
        return tuple(rule.name for rule, _ in self.steps)

    def replay(self) -> bool:
        """Proves the claim again from the steps alone."""
        return _proves(self.graph, self.left, self.right, self.steps)

    def __str__(self) -> str:
        def term(identifier: int) -> str:
            return term_text(self.graph, identifier)

        lines = [f"{term(self.left)} = {term(self.right)} by"]
        for number, (rule, match) in enumerate(self.steps, 1):
            lines.append(f"  {number}. {rule.name}: {rule.describe(match, term)}")
        return "\n".join(lines if self.steps else [lines[0] + " normal form"])


def term_text(graph: EGraph, identifier: int, depth: int = 12) -> str:
    """The term that a class id was made for, by founders; below `depth` only class names."""
    node = graph.founder[identifier]
    if depth == 0:
        return f"c{identifier}"
    children = ", ".join(term_text(graph, child, depth - 1) for child in node[1:])
    head = graph.language.text(node[0])
    return f"{head}({children})" if children else head


def explain(graph: EGraph, left: int, right: int) -> Explanation:
    """The shortest explanation that dropping steps finds. Raises ValueError if the classes are not
    equal.

    `left` and `right` are ids as `add` returned them, not canonical ones: they name the terms that
    were added.
    """
    if graph.find(left) != graph.find(right):
        raise ValueError(
            f"{term_text(graph, left)} and {term_text(graph, right)} are not known to be equal"
        )
    steps = list(graph.history)
    if not _proves(graph, left, right, steps):
        raise ValueError(
            "the history of this graph does not prove it: something else united the classes"
        )
    size = max(1, len(steps) // 2)
    while steps and size:
        place = len(steps)
        while place > 0:  # later steps are needed less often
            shorter = steps[: max(0, place - size)] + steps[place:]
            if len(shorter) < len(steps) and _proves(graph, left, right, shorter):
                steps = shorter
            place -= size
        size //= 2
    return Explanation(graph, left, right, tuple(steps))


def _proves(graph: EGraph, left: int, right: int, steps: list[Step] | tuple[Step, ...]) -> bool:
    fresh = EGraph(TensorLanguage() if isinstance(graph.language, TensorLanguage) else Language())
    copy = _copier(graph, fresh)
    ends = copy(left), copy(right)
    for rule, match in steps:
        try:
            rule.replay(fresh, rule.translate(match, copy))
        except ValueError:
            return False  # a condition that an omitted step had established
        fresh.rebuild()
        if fresh.find(ends[0]) == fresh.find(ends[1]):
            return True
    fresh.rebuild()
    return fresh.find(ends[0]) == fresh.find(ends[1])


def _copier(source: EGraph, target: EGraph) -> Callable[[int], int]:
    """Adds the founder terms of classes of one graph to another."""
    memo: dict[int, int] = {}

    def copy(identifier: int) -> int:
        if identifier not in memo:
            node = source.founder[identifier]
            memo[identifier] = target.add((node[0], *map(copy, node[1:])))
        return target.find(memo[identifier])

    return copy
