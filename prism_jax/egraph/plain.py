"""Rules over plain terms, written as s-expressions and compiled to Python: `(+ (+ ?a ?b) ?c) => (+
?a (+ ?b ?c))`.

The tensor language has its own patterns (`axioms/pattern.py`); these are for the engine alone: its
tests, its comparison with other engines, and small rule sets of one's own. Matching is semi-naive:
a match is found in the first search after its newest node appeared, and in no later one (unless a
merge changed one of its nodes).

>>> rule = rewrite("associate", "(+ (+ ?a ?b) ?c)", "(+ ?a (+ ?b ?c))")
>>> print(rule)
associate: (+ (+ ?a ?b) ?c) => (+ ?a (+ ?b ?c))
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prism_jax.egraph.core import EGraph

SExpression = str | tuple[Any, ...]


def parse(text: str) -> SExpression:
    """Reads `(head arguments...)`, `?variable` or `leaf`. Raises ValueError on unbalanced text."""
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()

    def one(position: int) -> tuple[SExpression, int]:
        if position >= len(tokens) or tokens[position] == ")":
            raise ValueError(f"expected a term at token {position} of {text!r}")
        if tokens[position] != "(":
            token = tokens[position]
            return (token if token.startswith("?") else (token,)), position + 1
        items: list[Any] = [tokens[position + 1]]
        position += 2
        while position < len(tokens) and tokens[position] != ")":
            item, position = one(position)
            items.append(item)
        if position >= len(tokens):
            raise ValueError(f"a parenthesis is not closed in {text!r}")
        return tuple(items), position + 1

    result, end = one(0)
    if end != len(tokens):
        raise ValueError(f"text after the term in {text!r}")
    return result


def add_term(graph: EGraph, text: str) -> int:
    """Adds a ground term and returns its class."""

    def build(term: SExpression) -> int:
        if isinstance(term, str):
            raise ValueError(f"{term} is a variable, in a term that must have none")
        return graph.add((term[0], *[build(child) for child in term[1:]]))

    return build(parse(text))


@dataclass(frozen=True)
class Rewrite:
    """A compiled rule. `search` and `apply` are what `run.saturate` calls."""

    name: str
    text: str
    left: SExpression
    right: SExpression
    _search: Callable[[EGraph, int], list[Any]]
    _apply: Callable[[EGraph, Any], None]

    def search(self, graph: EGraph, since: int) -> list[Any]:
        """Matches `(root class, root node, *variables)` with something newer than `since`."""
        return self._search(graph, since)

    def apply(self, graph: EGraph, match: Any) -> None:
        """Adds the right side of a match to its root's class."""
        self._apply(graph, match)

    def translate(self, match: Any, copy: Callable[[int], int]) -> Any:
        """A match in another graph, where `copy` gives the class of a class."""
        return tuple(copy(x) for x in match[2:])

    def replay(self, graph: EGraph, match: Any) -> None:
        """Adds one instance of the rule, both sides, from a translated match alone."""
        bound = dict(zip(_variables(self.left), match, strict=True))
        graph.union(_instance(graph, self.left, bound), _instance(graph, self.right, bound))

    def describe(self, match: Any, term: Callable[[int], str]) -> str:
        """The bindings of a match as text."""
        names = _variables(self.left)
        return ", ".join(f"{name} = {term(x)}" for name, x in zip(names, match[2:], strict=True))

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def rewrite(name: str, left: str, right: str) -> Rewrite:
    """Compiles a rule. Raises ValueError if the right side uses a variable that the left side does
    not bind.
    """
    pattern, result = parse(left), parse(right)
    if isinstance(pattern, str):
        raise ValueError(f"rule {name}: the left side is only a variable")
    bound = _variables(pattern)
    unbound = [v for v in _variables(result) if v not in bound]
    if unbound:
        raise ValueError(f"rule {name}: {', '.join(unbound)} on the right is not bound on the left")
    source = "\n".join([*_search_source(pattern, bound), *_apply_source(result, bound)])
    scope: dict[str, Any] = {"suffix": _suffix}
    exec(compile(source, f"<rule {name}>", "exec"), scope)
    return Rewrite(name, f"{left} => {right}", pattern, result, scope["search"], scope["apply"])


def _instance(graph: EGraph, term: SExpression, bound: dict[str, int]) -> int:
    if isinstance(term, str):
        return bound[term]
    return graph.add((term[0], *[_instance(graph, child, bound) for child in term[1:]]))


def _suffix(entries: list[Any], since: int) -> list[Any]:
    return entries[bisect_left(entries, (since + 1,)) :]


def _variables(term: SExpression) -> list[str]:
    if isinstance(term, str):
        return [term]
    return list(dict.fromkeys(v for child in term[1:] for v in _variables(child)))


def _search_source(pattern: tuple[Any, ...], bound: list[str]) -> list[str]:
    """Nested loops, one per inner node of the pattern; the innermost visits only new nodes if
    nothing above it is new.
    """
    levels: list[tuple[tuple[Any, ...], str]] = []
    lines = ["def search(graph, since):", " found = []", " classes = graph.classes"]
    lines += [" for root, entry in classes.items():"]
    names: dict[str, str] = {}

    def collect(term: tuple[Any, ...], place: str) -> None:
        number = len(levels)
        levels.append((term, place))
        for position, child in enumerate(term[1:]):
            if not isinstance(child, str):
                collect(child, f"c{number}_{position}")

    collect(pattern, "root")
    indent = "  "
    for number, (term, place) in enumerate(levels):
        rows = "entry" if number == 0 else f"classes[{place}]"
        lines.append(f"{indent}r{number} = {rows}.entries.get({term[0]!r})")
        lines.append(f"{indent}if not r{number}: continue")
        old = " and ".join(f"s{n} <= since" for n in range(number))
        last = number == len(levels) - 1
        source = f"r{number}"
        if last:
            source = f"(suffix(r{number}, since) if {old or 'True'} else r{number})"
            lines.append(f"{indent}if {old or 'True'} and r{number}[-1][0] <= since: continue")
        lines.append(f"{indent}for s{number}, n{number} in {source}:")
        indent += " "
        lines.append(f"{indent}if len(n{number}) != {len(term)}: continue")
        for position, child in enumerate(term[1:]):
            here = f"n{number}[{position + 1}]"
            if not isinstance(child, str):
                lines.append(f"{indent}c{number}_{position} = {here}")
            elif child in names:
                lines.append(f"{indent}if {names[child]} != {here}: continue")
            else:
                names[child] = f"v{len(names)}"
                lines.append(f"{indent}{names[child]} = {here}")
    values = "".join(f", {names[v]}" for v in bound)
    lines.append(f"{indent}found.append((root, n0{values}))")
    return [*lines, " return found"]


def _apply_source(result: SExpression, bound: list[str]) -> list[str]:
    values = "".join(f", v{n}" for n in range(len(bound)))
    names = {variable: f"v{number}" for number, variable in enumerate(bound)}
    lines = [
        "def apply(graph, match):",
        f" root, node{values} = match",
        " leader, memo = graph.leader, graph.memo",
    ]
    # Unions of this round may have moved a class; the cheap test avoids a call in the common case.
    for name in names.values():
        lines.append(f" if leader[{name}] != {name}: {name} = graph.find({name})")
    lines.append(" if leader[root] != root: root = graph.find(root)")
    if isinstance(result, str):
        return [*lines, f" if root != {names[result]}: graph.union(root, {names[result]})"]
    count = 0

    def build(term: SExpression) -> str:
        nonlocal count
        if isinstance(term, str):
            return names[term]
        children = "".join(f", {build(child)}" for child in term[1:])
        name, count = f"t{count}", count + 1
        lines.append(f" n = ({term[0]!r}{children},)" if children else f" n = ({term[0]!r},)")
        lines.append(f" {name} = memo.get(n)")
        lines.append(f" if {name} is None: {name} = graph.add(n)")
        lines.append(f" elif leader[{name}] != {name}: {name} = graph.find({name})")
        return name

    children = "".join(f", {build(child)}" for child in result[1:])
    lines.append(f" n = ({result[0]!r}{children},)" if children else f" n = ({result[0]!r},)")
    lines += [" t = memo.get(n)", " if t is None: graph.add(n, root)"]
    return [*lines, " elif t != root: graph.union(root, t)"]
