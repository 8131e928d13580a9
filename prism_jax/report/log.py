"""What the stages leave behind while they run: times, results by name, and which one failed.

In: one stage after another, as functions to call. Out: their results, and a `RegionReport` of all
that was seen. Invariant: an exception of a stage comes out as a `StageFailure` that names it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from prism_jax import progress
from prism_jax.errors import cause_of
from prism_jax.report.report import CandidateRow, RankingRow, RegionReport

if TYPE_CHECKING:  # the rooms are heavy, and a report only reads what they made
    from prism_jax.explore.result import SearchResult
    from prism_jax.instantiate import Outcome, Tried

T = TypeVar("T")


class StageFailure(Exception):
    """A stage raised `error`."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(stage, error)
        self.stage = stage
        self.error = error


class StageLog:
    """Runs stages, and remembers what each returned and how long it took."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}

    def run(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        """The result of one stage.

        Raises:
          StageFailure: the stage raised.
        """
        progress.note(stage=stage)
        start = time.perf_counter()
        try:
            result = function(*args)
        except Exception as error:
            raise StageFailure(stage, error) from error
        finally:
            self.seconds[stage] = time.perf_counter() - start
        self.results[stage] = result
        return result

    def report(self, name: str, program: Any, failure: StageFailure | None = None) -> RegionReport:
        """What is known of a region after its stages ran, or after one of them failed."""
        found: SearchResult | None = self.results.get("explore")
        outcome: Outcome | None = self.results.get("instantiate")
        emitted = self.results.get("emit")
        plan = outcome.plan if outcome is not None and emitted is not None else None
        tried = outcome.tried if outcome is not None else ()
        winner = next((row for row in tried if row.plan == plan), None)
        return RegionReport(
            name=name,
            program=str(program),
            chosen=str(plan.sgraph) if plan is not None else "",
            plan=plan.summary() if plan is not None else "",
            source=emitted.source if emitted is not None else "",
            axioms=winner.axioms if winner is not None else (),
            candidates=_rows(found, tried, outcome.reference if outcome is not None else None),
            refused=_refused(failure),
            evidence=str(outcome.evidence) if plan is not None and outcome is not None else "",
            search=_search(found),
            reference=outcome.reference if outcome is not None else None,
            stages=(*self.seconds.items(), *(outcome.split if outcome is not None else ())),
            plan_text="" if plan is None else plan.text,
            ranking=_ranking(outcome),
        )


def _ranking(outcome: Outcome | None) -> tuple[RankingRow, ...]:
    rows = outcome.trials.rows if outcome is not None else ()
    if not rows:
        return ()
    from prism_jax.instantiate.quality import judge
    from prism_jax.instantiate.tune import kernel_name

    plan = outcome.plan if outcome is not None else None
    chosen: list[str] = []
    if plan is not None:  # on a host, plans are tried whole
        chosen = [f"{plan.sgraph.name} {plan.sgraph.digest[:6]}"]
        chosen += [kernel_name(kernel, plan.sgraph) for kernel in plan.sgraph.kernels]
    return tuple(RankingRow(**dataclasses.asdict(quality)) for quality in judge(rows, chosen))


def _rows(
    found: SearchResult | None, tried: tuple[Tried, ...], reference: float | None
) -> tuple[CandidateRow, ...]:
    """What was tried, XLA's own version with it, then what the search found and nobody tried."""
    rows = [
        CandidateRow(
            what=f"{row.plan.summary()} ({row.why})" if row.why else row.plan.summary(),
            bound=row.bound,
            estimate=row.estimate,
            measured=row.measured,
            error=row.error,
            verdict=row.refused or "",
        )
        for row in tried
    ]
    known = {row.plan.sgraph.digest for row in tried}
    for c in found.candidates if found is not None else ():
        if c.why == "XLA":
            own = "XLA's own version"
            rows.append(CandidateRow(own, c.bound, c.estimate, reference, verdict="the reference"))
        elif c.sgraph.digest not in known:
            rows.append(CandidateRow(c.why, c.bound, c.estimate, verdict="not tried"))
    return tuple(rows)


def _refused(failure: StageFailure | None) -> tuple[str, ...]:
    return (f"{failure.stage} failed: {cause_of(failure.error)}",) if failure is not None else ()


def _search(found: SearchResult | None) -> str:
    if found is None:
        return ""
    counts = ", ".join(f"{name} {count}" for name, count in found.statistics.items())
    return f"{found.stop}; {counts}" if counts else found.stop
