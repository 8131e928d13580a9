"""How good the closed form's ranking is, judged by what tuning measured anyway.

In: the rows of `Trials`: (kernel, sizes, schedule, estimated seconds, measured seconds). Out: one
`Quality` for each kernel. Ties of the estimate (schedules of equal sizes) keep the order in which
they were tried, which is the ranking's own.

>>> rows = [("k", (("T", 8),), None, 1.0, 3.0), ("k", (("T", 16),), None, 2.0, 2.0)]
>>> [quality] = judge(rows)
>>> quality.place, quality.loss
(2, 1.5)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOP = 10
"""Places of the ranking that count as its top."""
Row = tuple[str, Any, Any, float, float]


@dataclass(frozen=True)
class Quality:
    """One kernel: how many tries ran, which place the fastest had in the closed form's order
    (1: first), how many times longer than it the closed form's first took, and whether the plan
    that was chosen has this kernel.
    """

    kernel: str
    tried: int
    place: int
    loss: float
    chosen: bool = False


def judge(rows: Iterable[Row], chosen: Collection[str] = ()) -> tuple[Quality, ...]:
    """One judgement per kernel, in the order in which kernels were met. Kernels of which a single
    try ran say nothing and are left out. `chosen`: the kernels of the plan that was chosen.
    """
    kernels: dict[str, list[tuple[float, float]]] = {}
    for kernel, _, _, estimate, measured in rows:
        kernels.setdefault(kernel, []).append((estimate, measured))
    found: list[Quality] = []
    for kernel, tries in kernels.items():
        if len(tries) < 2:
            continue
        order = sorted(tries, key=lambda t: t[0])  # stable
        times = [measured for _, measured in order]
        best = min(times)
        found.append(
            Quality(kernel, len(tries), times.index(best) + 1, times[0] / best, kernel in chosen)
        )
    return tuple(found)


@dataclass(frozen=True)
class Summary:
    """Several rows of kernels. `str` is one line.

    Attributes:
      rows: with at least one judged kernel.
      rows_in_top: the share of rows all of whose kernels have their fastest try in the top.
      plans: rows for which a plan with judged kernels was chosen.
      plans_in_top: the share of them all of whose plan's kernels have their fastest try in the top.
      kernels: of all rows.
      in_top: the share of kernels whose fastest try is in the top.
      loss: the geometric mean of the losses of the kernels.
    """

    rows: int
    rows_in_top: float
    plans: int
    plans_in_top: float
    kernels: int
    in_top: float
    loss: float

    def __str__(self) -> str:
        plans = ""
        if self.plans:
            share = f"{self.plans_in_top:.0%} of {self.plans} rows"
            plans = f", for all kernels of the plan chosen in {share}"
        return (
            f"ranking: the fastest of what was measured is in the closed form's first {TOP} for"
            f" {self.in_top:.0%} of {self.kernels} kernels{plans}, and for all kernels of"
            f" {self.rows_in_top:.0%} of {self.rows} rows; its first takes {self.loss:.2f}x as long"
            " (geometric mean)"
        )


def summarise(rows: Iterable[Sequence[Quality | Mapping[str, Any]]]) -> Summary | None:
    """The summary of the judgements of each row (or of the dictionaries that records keep); None
    of none.
    """
    judged = [
        [q if isinstance(q, Quality) else Quality(**q) for q in qualities]
        for qualities in rows
        if qualities
    ]
    if not judged:
        return None
    kernels = [quality for qualities in judged for quality in qualities]
    good = [_in_top(qualities) for qualities in judged]
    plans = [[q for q in qualities if q.chosen] for qualities in judged]
    plans = [qualities for qualities in plans if qualities]
    return Summary(
        rows=len(judged),
        rows_in_top=sum(good) / len(judged),
        plans=len(plans),
        plans_in_top=sum(map(_in_top, plans)) / max(1, len(plans)),
        kernels=len(kernels),
        in_top=sum(quality.place <= TOP for quality in kernels) / len(kernels),
        loss=math.exp(sum(math.log(quality.loss) for quality in kernels) / len(kernels)),
    )


def _in_top(qualities: Sequence[Quality]) -> bool:
    return all(quality.place <= TOP for quality in qualities)
