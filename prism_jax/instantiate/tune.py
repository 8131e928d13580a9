"""Measured choice among ranked candidates, kernel by kernel.

Kernels of a plan run one after the other, so each is tuned alone: its best sizes and schedule do
not depend on its neighbours, except through the symbols that they share (the number of parts of a
split), which are tried one value at a time. All candidates get their first tries (`survey`) before
the best is tuned further (`Tuning.refine`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prism_jax.device import Device
from prism_jax.explore.result import Candidate
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking, Sizes, Try
from prism_jax.ir.concrete import concrete_tensors
from prism_jax.ir.sgraph import Kernel, LibraryCall, SGraph

Function = Callable[..., Sequence[Any]]

FIRST, ALL_FIRST, LEAST_FIRST = 30, 96, 4
"""How many tries a kernel gets first, shared out among the numbers of parts of a split; how many
all kernels of all candidates get, where each still gets the least.
"""
COMPILE_SHARE = 0.6
"""Of the time left, compiling takes at most so much: what is compiled has to be measured too."""
HOPELESS = 1.5
"""Tuning does not go on where the first tries take so many times what is to be beaten."""
SHARED_VALUES = 3
ROUNDS = 4
LEAST_STEP = 0.01
"""Tuning moves on to what is next to the best, at most so often, while it gains this share."""


class Emitter(Protocol):
    """What turns plans into functions; given by the pipeline, so that tuning does not depend on any
    back end.
    """

    def functions(self, plans: Sequence[Plan], deadline: float) -> Sequence[Function | str]:
        """Each plan as a traceable function of its sGraph's inputs, or a sentence that says why it
        cannot run.
        """
        ...


class Clock(Protocol):
    """Times functions that compete, on random inputs of the sGraph's tensors: seconds, or a
    sentence that says why there are none. Nothing is waited for after `deadline`
    (`time.monotonic()`).
    """

    def __call__(
        self, functions: Sequence[Function], sgraph: SGraph, deadline: float
    ) -> list[float | str]: ...


@dataclass
class Trials:
    """What tuning tried: counts by outcome, and (kernel, sizes, schedule, estimate, measured) rows
    for judging the ranking.
    """

    compiled: int = 0
    measured: int = 0
    rows: list[tuple[str, Sizes, Schedule, float, float]] = field(
        default_factory=list[tuple[str, Sizes, Schedule, float, float]]
    )
    refusals: dict[str, int] = field(default_factory=dict[str, int])

    def refuse(self, reason: str) -> None:
        """Counts a candidate that does not run."""
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def commonest(self) -> str:
        """The reason given most often."""
        return max(self.refusals, key=lambda r: (self.refusals[r], r), default="no time was left")


class Tuning:
    """The tuning of one candidate: first tries of every kernel, then what is next to the best.

    Args:
      candidate: structure and form; its own sizes are where the shared symbols start from.
      device: whose model ranks.
      trials: takes the counts.
      tries: of all its kernels together, in the beginning.
    """

    def __init__(self, candidate: Candidate, device: Device, trials: Trials, tries: int) -> None:
        self.candidate, self.device = candidate, device
        sgraph = candidate.sgraph
        choices = _shared_values(sgraph, dict(candidate.sizes))
        self._studies = [
            [_Study(kernel, sgraph, device, shared, trials) for kernel in sgraph.kernels]
            for shared in choices
        ]
        kernels = len(choices) * max(1, len(sgraph.kernels))
        self._few = max(LEAST_FIRST, min(FIRST // len(choices), tries // kernels))

    @property
    def _best(self) -> list[_Study] | None:
        complete = [group for group in self._studies if all(study.times for study in group)]
        return min(complete, key=_seconds, default=None)

    @property
    def seconds(self) -> float:
        """What the best takes as far as measured, its library calls as the model has them; infinite
        where a kernel has not run.
        """
        best = self._best
        if best is None:
            return math.inf
        library = self.candidate.kernels < len(self.candidate.sgraph.nodes)
        guessed = sum(study.guess for study in best)
        rest = max(0.0, self.candidate.estimate - guessed) if library else 0.0
        return _seconds(best) + rest

    def refine(self, emitter: Emitter, clock: Clock, deadline: float, beaten: float) -> None:
        """Goes on from the best; not where it takes `HOPELESS` times `beaten`."""
        best = self._best
        for _ in range(ROUNDS if best is not None else 0):
            assert best is not None
            before = _seconds(best)
            if before > HOPELESS * beaten or time.monotonic() >= deadline:
                break
            more = [(study, study.ranking.around(*study.best[1:])) for study in best]
            _measure(more, self.device, emitter, clock, deadline)
            if _seconds(best) > before * (1 - LEAST_STEP):
                break

    def first(self) -> list[tuple[_Study, list[Try]]]:
        """What to try first."""
        studies = (study for group in self._studies for study in group)
        return [(study, study.ranking.first(self._few)) for study in studies]

    def plan(self) -> Plan | None:
        """The best measured one, None where a kernel has not run."""
        best = self._best
        if best is None:
            return None
        sizes: dict[str, int] = {}
        for study in best:
            sizes |= study.shared | dict(study.best[1])
        schedules = tuple(study.best[2] for study in best)
        items = tuple(sorted(sizes.items()))
        return Plan(self.candidate.sgraph, "triton", self.device.name, items, schedules)


def survey(
    candidates: Sequence[Candidate],
    device: Device,
    emitter: Emitter,
    clock: Clock,
    deadline: float,
    trials: Trials,
) -> list[Tuning]:
    """The first tries of all candidates, compiled together: which is best is known before any is
    tuned for long.
    """
    tries = ALL_FIRST // max(1, len(candidates))
    tunings = [Tuning(candidate, device, trials, tries) for candidate in candidates]
    work = [item for tuning in tunings for item in tuning.first()]
    _measure(work, device, emitter, clock, deadline)
    return tunings


def _seconds(group: Sequence[_Study]) -> float:
    return sum(study.best[0] for study in group)


class _Study:
    """What is known of one kernel under one choice of the shared symbols."""

    def __init__(
        self, kernel: Kernel, sgraph: SGraph, device: Device, shared: dict[str, int], trials: Trials
    ) -> None:
        self.kernel, self.shared, self.trials = kernel, shared, trials
        self.one = alone(kernel, sgraph)
        # Kernels of several structures that write the same result have one name.
        self.name = f"{kernel.name} {self.one.digest[:6]}"
        mine = {s: n for s, n in shared.items() if s in kernel.symbols}
        self.ranking = Ranking(kernel, device, mine)
        self.times: dict[tuple[Sizes, Schedule], float] = {}

    @property
    def guess(self) -> float:
        """Seconds of what the model ranks first."""
        return next((row.seconds for row in self.ranking.rows.values()), 0.0)

    @property
    def best(self) -> tuple[float, Sizes, Schedule]:
        """The fastest of what was measured."""
        sizes, schedule = min(self.times, key=lambda key: self.times[key])
        return self.times[sizes, schedule], sizes, schedule


def _measure(
    work: list[tuple[_Study, list[Try]]],
    device: Device,
    emitter: Emitter,
    clock: Clock,
    deadline: float,
) -> None:
    """Compiles what all studies want to try at once, then times each study's kernels together."""
    wanted = [(study, [t for t in tries if t[1:] not in study.times]) for study, tries in work]
    # One of each study in turn: where the time ends, every kernel has something that runs.
    order = [(s, n) for s, (_, tries) in enumerate(wanted) for n in range(len(tries))]
    order.sort(key=lambda place: place[::-1])
    plans = [
        Plan(wanted[s][0].one, "triton", device.name, sizes, (schedule,))
        for s, n in order
        for _, sizes, schedule in [wanted[s][1][n]]
    ]
    now = time.monotonic()
    made = emitter.functions(plans, now + COMPILE_SHARE * (deadline - now))
    functions = dict(zip(order, made, strict=True))
    for s, (study, tries) in enumerate(wanted):
        runnable: list[tuple[Try, Function]] = []
        for n, attempt in enumerate(tries):
            function = functions[s, n]
            if isinstance(function, str):
                study.trials.refuse(function)
            else:
                runnable.append((attempt, function))
        study.trials.compiled += len(runnable)
        if not runnable:
            continue
        seconds = clock(
            [f for _, f in runnable], concrete_tensors(study.one, study.shared), deadline
        )
        for ((guess, sizes, schedule), _), measured in zip(runnable, seconds, strict=True):
            if isinstance(measured, str):
                study.trials.refuse(measured)
            else:
                study.trials.measured += 1
                row = (study.name, sizes, schedule, guess, measured)
                study.trials.rows.append(row)
                study.times[sizes, schedule] = measured


def _shared_values(sgraph: SGraph, known: dict[str, int]) -> list[dict[str, int]]:
    """Numbers for the symbols that several kernels share: the model's choice, its neighbours."""
    shared = [s for s in sgraph.symbols if sum(s in k.symbols for k in sgraph.kernels) > 1]
    values = [{s: known[s] for s in shared}]
    for factor in (2.0, 0.5):
        changed = {s: max(2, int(known[s] * factor)) for s in shared}
        if shared and changed not in values:
            values.append(changed)
    return values[:SHARED_VALUES]


def alone(kernel: Kernel | LibraryCall, sgraph: SGraph) -> SGraph:
    """The kernel as an sGraph of its own: what it reads are inputs, what it writes are outputs."""
    return SGraph(kernel.name, kernel.reads, (kernel,), kernel.writes, sgraph.compute)
