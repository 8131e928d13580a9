"""Reports: what `prism.explain` and `prism.bisect` return.

In: what the stages recorded while a function was rewritten. Out: frozen values that print as text,
turn into JSON, and show themselves in notebooks. Invariant: a report holds texts and numbers only,
so it can be kept, compared and stored; times are seconds.

>>> print(Report(function="f", device="CPU", regions=(), untouched=3, seconds=0.01))
f on CPU: 0 regions, 0 replaced, 3 equations left to XLA (0.01 s)
"""

from __future__ import annotations

import dataclasses
import html
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CandidateRow:
    """One way to run a region: what it is, its bound, its model time, what was measured, its fate.

    Times are seconds, `error` is the share of what the accuracy contract allows; None: not known.
    """

    what: str
    bound: float | None = None
    estimate: float | None = None
    measured: float | None = None
    error: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class RankingRow:
    """How well the closed form ranked one kernel's tries: how many ran, the place of the fastest in
    its order, how many times longer its first took, and whether the plan chosen has the kernel.
    """

    kernel: str
    tried: int
    place: int
    loss: float
    chosen: bool = False


@dataclass(frozen=True)
class RegionReport:
    """What happened to one region.

    Attributes:
      name: the user's function, and which part of it.
      program: the region in index notation.
      chosen: the sGraph that runs, as text; empty if XLA's own version stays.
      plan: back end, launches and sizes in one line; empty likewise.
      source: the emitted source.
      plan_text: the plan as text that `instantiate.plan_text` parses back; empty likewise.
      axioms: names of the rewrites behind the chosen form.
      candidates: everything that was considered, in the order of its rank.
      refused: why parts of the region, or all of it, were left as they are.
      evidence: what was proved and tested, as text.
      search: stop reason and counts of the search.
      reference: measured seconds of XLA's own version.
      stages: seconds spent in each stage, in order; then what instantiation spent compiling,
        measuring and verifying.
      ranking: how well the closed form ranked what was measured, per kernel.
      kept: where the plan came from if it was found earlier, and how long that took.
    """

    name: str
    program: str = ""
    chosen: str = ""
    plan: str = ""
    source: str = ""
    axioms: tuple[str, ...] = ()
    candidates: tuple[CandidateRow, ...] = ()
    refused: tuple[str, ...] = ()
    evidence: str = ""
    search: str = ""
    reference: float | None = None
    stages: tuple[tuple[str, float], ...] = ()
    plan_text: str = ""
    ranking: tuple[RankingRow, ...] = ()
    kept: str = ""

    @property
    def replaced(self) -> bool:
        """Whether a plan of ours runs."""
        return bool(self.plan)

    def __str__(self) -> str:
        head = f"region {self.name}: {self.plan or 'left to XLA'}"
        parts = [head]
        for title, text in (
            ("program", self.program),
            ("axioms", ", ".join(self.axioms)),
            ("search", self.search),
            ("candidates", _table(self.candidates)),
            ("ranking", "\n".join(map(_ranked, self.ranking))),
            ("chosen", self.chosen),
            ("evidence", self.evidence),
            ("refused", "\n".join(self.refused)),
            ("from the cache", self.kept),
            ("seconds", ", ".join(f"{stage} {s:.3f}" for stage, s in self.stages)),
        ):
            if text:
                parts.append(f"  {title}\n{_indent(text, 4)}")
        return "\n".join(parts)


@dataclass(frozen=True)
class Report:
    """What `prism.explain` found in one function.

    Attributes:
      function: the function's name.
      device: the row of the device table that was planned for.
      regions: one entry per region, in the order in which they run.
      untouched: how many equations are in no region.
      refused: why equations are in no region, each reason once.
      seconds: of all stages together.
    """

    function: str
    device: str
    regions: tuple[RegionReport, ...]
    untouched: int = 0
    refused: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """One line per function and per replaced region."""
        replaced = [region for region in self.regions if region.replaced]
        if not self.device:
            return f"{self.function}: prism_jax did not look at it (switched off, or no equations)"
        head = (
            f"{self.function} on {self.device}: {len(self.regions)} regions, {len(replaced)} "
            f"replaced, {self.untouched} equations left to XLA ({self.seconds:.3g} s)"
        )
        return "\n".join([head, *(f"  {region.name}: {region.plan}" for region in replaced)])

    def __str__(self) -> str:
        parts = [self.summary, *map(str, self.regions)]
        if self.refused:
            parts.append("left to XLA because\n" + _indent("\n".join(self.refused), 2))
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types; numbers that JSON cannot hold are None."""
        return _jsonable(dataclasses.asdict(self))

    def _repr_html_(self) -> str:
        regions = "".join(
            f"<details><summary><b>{html.escape(region.name)}</b>: "
            f"{html.escape(region.plan or 'left to XLA')}</summary>"
            f"<pre>{html.escape(str(region))}</pre>"
            + (f"<pre>{html.escape(region.source)}</pre>" if region.source else "")
            + "</details>"
            for region in self.regions
        )
        refused = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.refused)
        left = f"<p>Left to XLA because</p><ul>{refused}</ul>" if refused else ""
        return f"<div><pre>{html.escape(self.summary)}</pre>{regions}{left}</div>"


@dataclass(frozen=True)
class Bisection:
    """What `prism.bisect` found: each region's effect on the result when it alone is replaced.

    `rows` holds (region, largest difference from jax.jit's result relative to the result's largest
    value), worst first; `together` is the difference with all of them replaced.
    """

    function: str
    rows: tuple[tuple[str, float], ...]
    together: float

    @property
    def culprit(self) -> str | None:
        """The region that changes the result most, None if no region changes it."""
        return self.rows[0][0] if self.rows and self.rows[0][1] > 0 else None

    def __str__(self) -> str:
        if self.culprit is None:
            head = f"{self.function}: no region changes the result"
        else:
            head = f"{self.function}: {self.culprit} changes the result most"
        rows = [f"  {error:10.3g}  {name}" for name, error in self.rows]
        return "\n".join([head, *rows, f"  {self.together:10.3g}  all together"])


def _table(rows: tuple[CandidateRow, ...]) -> str:
    def micro(seconds: float | None) -> str:
        return f"{seconds * 1e6:10.2f}" if seconds is not None else " " * 10

    lines = [
        f"{micro(row.bound)}{micro(row.estimate)}{micro(row.measured)}"
        + (f"{row.error:8.3g}" if row.error is not None else " " * 8)
        + f"  {row.what}"
        + (f": {row.verdict}" if row.verdict else "")
        for row in rows
    ]
    if not lines:
        return ""
    head = f"{'bound us':>10}{'model us':>10}{'meas. us':>10}{'error':>8}"
    return "\n".join([head, *lines])


def _ranked(row: RankingRow) -> str:
    return (
        f"{row.kernel}: the fastest of {row.tried} tries was number {row.place} of the closed form,"
        f" whose first takes {row.loss:.2f}x as long"
    )


def _indent(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
