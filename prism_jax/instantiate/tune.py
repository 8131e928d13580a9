"""Measured choice among ranked candidates, kernel by kernel.

Kernels of a plan run one after the other, so each is tuned alone: its best sizes and schedule do
not depend on its neighbours, except through the symbols that they share (the number of parts of a
split), which are tried one value at a time. A few tries of all candidates come first, then other
first tries of what is near the best of them (`survey`); then the best is tuned further
(`Tuning.refine`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from prism_jax.device import Device
from prism_jax.explore.result import Candidate
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking, Sizes, Try
from prism_jax.ir.concrete import concrete_tensors
from prism_jax.ir.sgraph import Kernel, LibraryCall, SGraph

Function = Callable[..., Sequence[Any]]
Rankings = dict[tuple[str, Sizes], Ranking]
"""By the kernel's digest alone, and the numbers of the symbols that it shares."""

FIRST, ALL_FIRST, LEAST_FIRST = 20, 80, 4
"""How many tries a kernel gets first, shared out among the numbers of parts of a split; how many
all kernels of all candidates get, where each still gets the least. Of what was measured the first
10 in the model's order lose 0.4 %, in geometric mean of 333 kernels (`kernels/tries`).
"""
PROMISING = 1.2
"""What takes at most so many times the best of all after the least tries is tried further."""
COMPILE_SHARE = 0.85
"""Of the time left, compiling takes at most so much: the last to be compiled has to be measured."""
REACH = 1.05
"""Tuning does not go on where the first tries take so many times what is to be beaten: what is next
to the best of them gained 1.2 % on average in 88 rounds on an H100, more than 5 % in 7 % of them.
"""
SHARED_VALUES = 3
ROUNDS = 4
LEAST_STEP = 0.02
"""Tuning moves on to what is next to the best, at most so often, while it gains this share: of the
rounds after one that gained 1 to 2 %, one in nine gained anything.
"""

watchers: list[Callable[[Plan, float], None]] = []
"""Each is told every try that was measured, a plan of one kernel, and the seconds it took."""


class Emitter(Protocol):
    """What turns plans into functions; given by the pipeline, so that tuning does not depend on any
    back end.
    """

    def functions(self, plans: Sequence[Plan], deadline: float) -> Iterable[Function | str]:
        """Each plan, in order, as a traceable function of its sGraph's inputs, or a sentence that
        says why it cannot run. The first may be asked for before the last is there.
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
    for judging the ranking; `times`: seconds of each kernel, as a plan of its own, whichever
    candidate it was tried for.
    """

    compiled: int = 0
    measured: int = 0
    times: dict[Plan, float] = field(default_factory=dict[Plan, float])
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
      rankings: of kernels that other candidates have too; takes those of this one.
    """

    def __init__(
        self,
        candidate: Candidate,
        device: Device,
        trials: Trials,
        tries: int,
        rankings: Rankings,
    ) -> None:
        self.candidate, self.device = candidate, device
        sgraph = candidate.sgraph
        choices = shared_values(sgraph, dict(candidate.sizes))
        self._studies = [
            [_Study(kernel, sgraph, device, shared, trials, rankings) for kernel in sgraph.kernels]
            for shared in choices
        ]
        kernels = len(choices) * max(1, len(sgraph.kernels))
        self._few = max(LEAST_FIRST, min(FIRST // len(choices), tries // kernels))

    @property
    def _best(self) -> list[_Study] | None:
        best = min(self._studies, key=_seconds)
        return best if math.isfinite(_seconds(best)) else None

    @property
    def whole(self) -> bool:
        """Whether everything is measured: no library call takes part."""
        return self.candidate.kernels == len(self.candidate.sgraph.nodes)

    @property
    def seconds(self) -> float:
        """What the best takes as far as measured, its library calls as the model has them; infinite
        where a kernel has not run.
        """
        return min(self.each_seconds)

    @property
    def each_seconds(self) -> list[float]:
        """The same for each choice of the shared symbols."""
        guessed = sum(study.ranking.structure_s for study in self._studies[0])
        rest = 0.0 if self.whole else max(0.0, self.candidate.estimate - guessed)
        return [_seconds(group) + rest for group in self._studies]

    def refine(self, emitter: Emitter, clock: Clock, deadline: float, beaten: float) -> None:
        """Goes on from the best; not where it takes more than `REACH` times `beaten`."""
        best = self._best
        for _ in range(ROUNDS if best is not None else 0):
            assert best is not None
            before = _seconds(best)
            if before > REACH * beaten or time.monotonic() >= deadline:
                break
            more = [(study, study.ranking.around(*study.best[1:])) for study in best]
            _measure([more], emitter, clock, deadline)
            if _seconds(best) > before * (1 - LEAST_STEP):
                break

    def first(self) -> list[list[tuple[_Study, list[Try]]]]:
        """What to try first, for each choice of the shared symbols; the model's choice first."""
        few = self._few
        return [[(study, study.ranking.first(few)) for study in group] for group in self._studies]

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
    rankings: Rankings,
) -> list[Tuning]:
    """The first tries of all candidates: which is best is known before any is tuned for long. A few
    of each are compiled together, the model's choice of what kernels share first, candidate after
    candidate; then the others of those that are near the best.
    """
    most = ALL_FIRST // max(1, len(candidates))
    tunings = [Tuning(candidate, device, trials, most, rankings) for candidate in candidates]
    plans = [tuning.first() for tuning in tunings]
    rounds = itertools.zip_longest(*plans, fillvalue=[])
    few = [[(s, tries[:LEAST_FIRST]) for s, tries in turn] for turns in rounds for turn in turns]
    _measure(few, emitter, clock, deadline)
    bar = PROMISING * min((tuning.seconds for tuning in tunings), default=math.inf)
    more = [
        [(s, tries[LEAST_FIRST:]) for s, tries in turn]
        for tuning, turns in zip(tunings, plans, strict=True)
        for turn, seconds in zip(turns, tuning.each_seconds, strict=True)
        if seconds <= bar or not math.isfinite(tuning.seconds)
    ]
    _measure(more, emitter, clock, deadline)
    return tunings


def _seconds(group: Sequence[_Study]) -> float:
    """Of all kernels' best tries; infinite where one has not run."""
    return sum(study.best[0] if study.times else math.inf for study in group)


class _Study:
    """What is known of one kernel under one choice of the shared symbols."""

    def __init__(
        self, kernel: Kernel, sgraph: SGraph, device: Device, shared: dict[str, int],
        trials: Trials, rankings: Rankings,
    ) -> None:  # fmt: skip
        self.kernel, self.shared, self.trials = kernel, shared, trials
        self.device = device.name
        self.one, self.name = alone(kernel, sgraph), kernel_name(kernel, sgraph)
        self.ranking = ranked(kernel, sgraph, device, shared, rankings)
        self.times: dict[tuple[Sizes, Schedule], float] = {}

    @property
    def best(self) -> tuple[float, Sizes, Schedule]:
        """The fastest of what was measured."""
        sizes, schedule = min(self.times, key=lambda key: self.times[key])
        return self.times[sizes, schedule], sizes, schedule

    def plan(self, sizes: Sizes, schedule: Schedule) -> Plan:
        """A try as a plan of the kernel alone."""
        numbers = tuple(sorted((self.shared | dict(sizes)).items()))
        return Plan(self.one, "triton", self.device, numbers, (schedule,))

    def recall(self, tries: Sequence[Try]) -> None:
        """Takes what was measured of tries, for this candidate or of the same kernel in another."""
        for _, sizes, schedule in tries:
            known = self.trials.times.get(self.plan(sizes, schedule))
            if known is not None:
                self.times[sizes, schedule] = known

    def learn(
        self, made: Sequence[tuple[Try, Function | str]], seconds: Sequence[float | str]
    ) -> None:
        """Notes what became of tries: why one was not compiled, what those that were took."""
        runnable = [attempt for attempt, function in made if not isinstance(function, str)]
        self.trials.compiled += len(runnable)
        for _, function in made:
            if isinstance(function, str):
                self.trials.refuse(function)
        for (guess, sizes, schedule), measured in zip(runnable, seconds, strict=True):
            if isinstance(measured, str):
                self.trials.refuse(measured)
            else:
                self.trials.measured += 1
                row = (self.name, sizes, schedule, guess, measured)
                self.trials.rows.append(row)
                plan = self.plan(sizes, schedule)
                self.trials.times[plan] = measured
                for tell in watchers:
                    tell(plan, measured)


@dataclass(eq=False)
class _Batch:
    """Tries of one kernel that are timed together, and what compiling them gave."""

    study: _Study
    tries: list[Try]
    made: list[tuple[Try, Function | str]] = field(default_factory=list[tuple[Try, Any]])
    seconds: Future[list[float | str]] | None = None


def _measure(
    turns: Sequence[Sequence[tuple[_Study, list[Try]]]],
    emitter: Emitter,
    clock: Clock,
    deadline: float,
) -> None:
    """Compiles what the studies of all turns want to try, and times a batch of each study's kernels
    as soon as they are there: the device measures what is compiled while the next is being
    compiled.
    """
    order = _order(turns)
    batches = list(dict.fromkeys(batch for batch, _ in order))
    plans = [batch.study.plan(*attempt[1:]) for batch, attempt in order]
    now = time.monotonic()
    with ThreadPoolExecutor(1, "prism_jax_measure") as beside:
        functions = emitter.functions(plans, now + COMPILE_SHARE * (deadline - now))
        for (batch, attempt), function in zip(order, functions, strict=True):
            batch.made.append((attempt, function))
            if len(batch.made) == len(batch.tries):
                runnable = [f for _, f in batch.made if not isinstance(f, str)]
                inputs = concrete_tensors(batch.study.one, batch.study.shared)
                batch.seconds = beside.submit(_times, clock, runnable, inputs, deadline)
    for batch in batches:
        if batch.seconds is not None:
            batch.study.learn(batch.made, batch.seconds.result())
    for turn in turns:
        for study, tries in turn:
            study.recall(tries)


def _order(turns: Sequence[Sequence[tuple[_Study, list[Try]]]]) -> list[tuple[_Batch, Try]]:
    """Every try that was not measured, in the order of compiling: turn after turn a few of each
    study, one for each in turn, then all the others. Where the time ends, the kernels of the first
    turns all have something that runs, and it was timed.
    """
    asked: set[Plan] = set()
    first: list[tuple[_Batch, Try]] = []
    later: list[tuple[_Batch, Try]] = []
    for turn in turns:
        fresh = [(study, _fresh(study, tries, asked)) for study, tries in turn]
        few = [_Batch(study, tries[:LEAST_FIRST]) for study, tries in fresh]
        rest = [_Batch(study, tries[LEAST_FIRST:]) for study, tries in fresh]
        places = ((n, batch) for batch in few for n in range(len(batch.tries)))
        first += [
            (batch, batch.tries[n]) for n, batch in sorted(places, key=lambda place: place[0])
        ]
        later += [(batch, attempt) for batch in rest for attempt in batch.tries]
    return [*first, *later]


def _fresh(study: _Study, tries: Sequence[Try], asked: set[Plan]) -> list[Try]:
    """What has not been measured or asked for: a kernel that several candidates have, once."""
    plans = {study.plan(*attempt[1:]): attempt for attempt in tries}
    new = [plan for plan in plans if plan not in asked and plan not in study.trials.times]
    asked.update(new)
    return [plans[plan] for plan in new]


def _times(
    clock: Clock, functions: Sequence[Function], sgraph: SGraph, deadline: float
) -> list[float | str]:
    return clock(functions, sgraph, deadline) if functions else []


def shared_values(sgraph: SGraph, known: dict[str, int]) -> list[dict[str, int]]:
    """Numbers for the symbols that several kernels share: the model's choice, its neighbours."""
    shared = [s for s in sgraph.symbols if sum(s in k.symbols for k in sgraph.kernels) > 1]
    values = [{s: known[s] for s in shared}]
    for factor in (2.0, 0.5):
        changed = {s: max(2, int(known[s] * factor)) for s in shared}
        if shared and changed not in values:
            values.append(changed)
    return values[:SHARED_VALUES]


def ranked(
    kernel: Kernel, sgraph: SGraph, device: Device, shared: Mapping[str, int], rankings: Rankings
) -> Ranking:
    """The kernel's ranking: what is in `rankings`, or made and put there."""
    mine = {s: n for s, n in shared.items() if s in kernel.symbols}
    key = alone(kernel, sgraph).digest, tuple(sorted(mine.items()))
    if key not in rankings:
        rankings[key] = Ranking(kernel, device, mine)
    return rankings[key]


def kernel_name(kernel: Kernel, sgraph: SGraph) -> str:
    """What reports call it: kernels of several structures that write the same result have one name
    of their own.
    """
    return f"{kernel.name} {alone(kernel, sgraph).digest[:6]}"


def alone(kernel: Kernel | LibraryCall, sgraph: SGraph) -> SGraph:
    """The kernel as an sGraph of its own: what it reads are inputs, what it writes are outputs."""
    return SGraph(kernel.name, kernel.reads, (kernel,), kernel.writes, sgraph.compute)
