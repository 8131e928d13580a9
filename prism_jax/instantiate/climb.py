"""Sizes of a whole plan on a host: a few that differ, then uphill from the fastest.

In: a candidate and a device. Out: plans to measure, in the order of the model's expectation. Unlike
a kernel for a GPU, blocks of a host run inside one program of XLA, so plans are timed whole, and
one more try costs a compilation of a fraction of a second: there are few tries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from prism_jax.device import Device
from prism_jax.explore.result import Candidate
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking, Sizes
from prism_jax.ir.nodes import Node, Pointwise, Reduce
from prism_jax.ir.program import walk

__all__ = ["UNROLL_UP_TO", "Climb", "unrolls"]

UNROLL_UP_TO = 128
"""Longest reduction that is tried as a sum of slices."""
APART = 2.0
"""First tries differ by so many doublings and halvings, added up over all symbols."""
CREDIBLE = 3.0
"""First tries are expected to take at most so many times what the model's choice takes."""


class Climb:
    """Plans of one candidate's structure for blocked lax, and the times that they took."""

    def __init__(self, candidate: Candidate, device: Device) -> None:
        self.candidate, self.device = candidate, device
        kernels = candidate.sgraph.kernels
        self.rankings = [Ranking(kernel, device, {}) for kernel in kernels]
        self.schedules = tuple(Schedule(cut=ranking.cuts) for ranking in self.rankings)
        self.unrolls = unrolls([r for k in kernels for r in k.roots])
        self.times: dict[Plan, float] = {}

    @property
    def best(self) -> Plan | None:
        """The fastest of what was measured."""
        return min(self.times, key=lambda plan: self.times[plan], default=None)

    @property
    def seconds(self) -> float:
        """What the fastest took."""
        return min(self.times.values(), default=math.inf)

    def plan(self, sizes: Mapping[str, int], unroll: int) -> Plan:
        """The plan with these sizes."""
        given = tuple(sorted(sizes.items()))
        graph = self.candidate.sgraph
        return Plan(graph, "lax", self.device.name, given, self.schedules, unroll)

    def first(self, count: int) -> list[Plan]:
        """The model's choice and what differs most from it among what the model thinks well of."""
        starts = [dict(self.candidate.sizes)]
        options = [list(_spread(ranking, count)) for ranking in self.rankings]
        for n in range(count):
            sizes = dict(self.candidate.sizes)
            for some in options:
                if some:
                    sizes |= dict(some[min(n, len(some) - 1)])
            if sizes not in starts and self._legal(sizes):
                starts.append(sizes)
        plans = [self.plan(sizes, self.unrolls[-1]) for sizes in starts[:count]]
        others = [self.plan(starts[0], unroll) for unroll in self.unrolls[:-1]]
        return list(dict.fromkeys([*plans, *others]))

    def around(self, count: int) -> list[Plan]:
        """What is next to the fastest and not yet measured: one symbol doubled or halved, or one
        doubled and another halved; what the model likes best first.
        """
        best = self.best
        if best is None:
            return []
        sizes = dict(best.sizes)
        steps = [(symbol, factor) for symbol in sizes for factor in (2.0, 0.5)]
        moves = [(step,) for step in steps]
        moves += [(a, b) for a, b in itertools.combinations(steps, 2) if a[0] != b[0]
                  and a[1] * b[1] == 1.0]  # fmt: skip
        near: list[tuple[float, int, Plan]] = []
        for move in moves:
            other = sizes | {symbol: int(sizes[symbol] * factor) for symbol, factor in move}
            plan = self.plan(other, best.unroll)
            if self._legal(other) and plan not in self.times:
                near.append((self._estimate(other), len(near), plan))
        return [plan for *_, plan in sorted(near, key=lambda n: n[:2])][:count]

    def rows(self) -> list[tuple[str, Sizes, Schedule, float, float]]:
        """What was measured, for judging the ranking: rows of `Trials`."""
        name = f"{self.candidate.sgraph.name} {self.candidate.sgraph.digest[:6]}"
        return [
            (name, plan.sizes, plan.schedules[0], self._estimate(dict(plan.sizes)), seconds)
            for plan, seconds in self.times.items()
        ]

    def fits(self, plan: Plan) -> bool:
        """Whether the sizes of a plan of another form of this structure are legal here."""
        return set(dict(plan.sizes)) == set(dict(self.candidate.sizes)) and self._legal(
            dict(plan.sizes)
        )

    def _legal(self, sizes: Mapping[str, int]) -> bool:
        return all(_mine(ranking, sizes) in ranking.rows for ranking in self.rankings)

    def _estimate(self, sizes: Mapping[str, int]) -> float:
        return sum(r.rows[_mine(r, sizes)].seconds for r in self.rankings)


def _mine(ranking: Ranking, sizes: Mapping[str, int]) -> Sizes:
    return tuple((symbol, sizes[symbol]) for symbol in ranking.kernel.symbols)


def _spread(ranking: Ranking, count: int) -> Iterator[Sizes]:
    """Sizes far from each other, best estimate first."""
    kept: list[Sizes] = []
    for sizes, row in ranking.rows.items():
        if len(kept) == count or (kept and row.seconds > CREDIBLE * ranking.rows[kept[0]].seconds):
            return
        if all(_distance(sizes, other) >= APART for other in kept):
            kept.append(sizes)
            yield sizes


def _distance(one: Sizes, other: Sizes) -> float:
    pairs = zip(one, other, strict=True)
    return sum(abs(math.log2(max(a, 1) / max(b, 1))) for (_, a), (_, b) in pairs)


def unrolls(roots: Sequence[Node]) -> tuple[int, ...]:
    """Whether reductions of non-products are also tried as sums of slices, which a CPU's vector
    units like: values of `Plan.unroll`, the most promising last.
    """
    for node in walk(roots):
        if isinstance(node, Reduce) and not (
            isinstance(node.body, Pointwise) and node.body.op == "mul"
        ):
            sizes = [a.size for a in node.axes if isinstance(a.size, int)]
            short = bool(sizes) and max(sizes) <= UNROLL_UP_TO
            if short and node.monoid in ("sum", "max", "min"):
                return (0, UNROLL_UP_TO)
    return (0,)
