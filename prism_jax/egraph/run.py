"""Running rules until nothing is new or a limit is met: rounds of search, apply, rebuild.

In: an e-graph and rules. Out: a `Saturation`: why it stopped, one record per round and per rule. A
rule that matches too often is banned for some rounds (back-off); saturation is claimed only if the
last round banned nothing. The order of rules is the caller's, and matches are applied in the order
found, so equal inputs give equal graphs (a time limit aside).

>>> from prism_jax.egraph.core import EGraph
>>> from prism_jax.egraph.plain import rewrite
>>> g = EGraph()
>>> _ = g.add(("+", g.add(("a",)), g.add(("b",))))
>>> saturate(g, [rewrite("commute", "(+ ?x ?y)", "(+ ?y ?x)")]).stop
<StopReason.SATURATED: 'saturated'>
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from prism_jax.egraph.core import EGraph


class StopReason(Enum):
    """Why a saturation ended."""

    SATURATED = "saturated"
    ROUNDS = "round limit"
    NODES = "node limit"
    TIME = "time limit"


@dataclass(frozen=True)
class Limits:
    """Budgets of one saturation: rounds, e-nodes, seconds; `matches` is what one rule may find in a
    round before back-off.
    """

    rounds: int = 30
    nodes: int = 1_500
    seconds: float = 2.0
    matches: int = 2_000

    def __post_init__(self) -> None:
        for name in ("rounds", "nodes", "seconds", "matches"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Limits.{name} must be positive, not {getattr(self, name)!r}")


class Rule(Protocol):
    """Anything with a name that can look for matches newer than a stamp and apply one."""

    @property
    def name(self) -> str:
        """The name under which it is counted and explained."""
        ...

    def search(self, graph: EGraph, since: int) -> list[Any]:
        """Matches that hold something newer than the stamp `since` (0: everything)."""
        ...

    def apply(self, graph: EGraph, match: Any) -> None:
        """Adds what the rule says about a match; the graph notices whether that was new."""
        ...


@dataclass
class RuleStatistics:
    """What one rule did."""

    matches: int = 0
    applied: int = 0
    bans: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Round:
    """What one round did; sizes are those at its end."""

    matches: int
    nodes: int
    classes: int
    banned: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Saturation:
    """The record of one run of the rules."""

    stop: StopReason
    rounds: tuple[Round, ...]
    rules: dict[str, RuleStatistics]
    seconds: float

    def __str__(self) -> str:
        last = self.rounds[-1] if self.rounds else Round(0, 0, 0, (), 0.0)
        lines = [
            f"stop: {self.stop.value} after {len(self.rounds)} rounds, "
            f"{last.nodes} nodes in {last.classes} classes"
        ]
        for name, rule in self.rules.items():
            if rule.matches:
                bans = f", banned {rule.bans} times" if rule.bans else ""
                lines.append(f"  {name}: {rule.matches} matches, {rule.applied} new{bans}")
        return "\n".join(lines)


@dataclass
class _Progress:
    since: int = 0
    banned_until: int = 0
    statistics: RuleStatistics = field(default_factory=RuleStatistics)


def saturate(graph: EGraph, rules: Sequence[Rule], limits: Limits | None = None) -> Saturation:
    """Applies rules until saturation or a limit. Raises ValueError if two rules share a name."""
    limits = limits or Limits()
    progress = {rule.name: _Progress() for rule in rules}
    if len(progress) != len(rules):
        raise ValueError(f"two rules share a name among {sorted(rule.name for rule in rules)}")
    start = time.perf_counter()
    deadline = start + limits.seconds
    rounds: list[Round] = []
    graph.rebuild()
    stop: StopReason | None = None
    while stop is None:
        began = time.perf_counter()
        if len(rounds) == limits.rounds:
            stop = StopReason.ROUNDS
            break
        stop, found, banned = _round(graph, rules, progress, limits, deadline, len(rounds))
        graph.rebuild()
        seconds = time.perf_counter() - began
        names = tuple(banned)
        rounds.append(Round(found, graph.node_count, len(graph.classes), names, seconds))
    statistics = {name: one.statistics for name, one in progress.items()}
    return Saturation(stop, tuple(rounds), statistics, time.perf_counter() - start)


def _round(
    graph: EGraph,
    rules: Sequence[Rule],
    progress: dict[str, _Progress],
    limits: Limits,
    deadline: float,
    number: int,
) -> tuple[StopReason | None, int, list[str]]:
    """One round: search everything first, then apply, so that all rules see the same graph."""
    graph.clock += 1
    before = graph.clock - 1
    todo: list[tuple[Rule, list[Any]]] = []
    banned: list[str] = []
    for rule in rules:
        own = progress[rule.name]
        if number < own.banned_until:
            banned.append(rule.name)
            continue
        clock = time.perf_counter()
        matches = rule.search(graph, own.since)
        own.statistics.seconds += time.perf_counter() - clock
        if len(matches) > limits.matches << own.statistics.bans:
            own.statistics.bans += 1
            own.banned_until = number + (1 << own.statistics.bans)
            banned.append(rule.name)
            continue
        own.since = before
        own.statistics.matches += len(matches)
        if matches:
            todo.append((rule, matches))
        if time.perf_counter() > deadline:
            return StopReason.TIME, 0, banned
    version = graph.version
    for rule, matches in todo:
        stop = _apply_all(graph, rule, matches, progress[rule.name].statistics, limits, deadline)
        if stop is not None:
            return stop, sum(len(m) for _, m in todo), banned
    unchanged = version == graph.version
    stop = StopReason.SATURATED if unchanged and not banned else None
    return stop, sum(len(m) for _, m in todo), banned


def _apply_all(
    graph: EGraph,
    rule: Rule,
    matches: list[Any],
    statistics: RuleStatistics,
    limits: Limits,
    deadline: float,
) -> StopReason | None:
    clock = time.perf_counter()
    graph.reason = rule.name
    stop = None
    for index, match in enumerate(matches):
        version = graph.version
        rule.apply(graph, match)
        if graph.version != version:
            statistics.applied += 1
            graph.history.append((rule, match))
        if len(graph.memo) >= limits.nodes:
            stop = StopReason.NODES
            break
        if index & 63 == 63 and time.perf_counter() > deadline:
            stop = StopReason.TIME
            break
    graph.reason = "given"
    statistics.seconds += time.perf_counter() - clock
    return stop
