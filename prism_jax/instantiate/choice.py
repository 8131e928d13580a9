"""From ranked candidates to the plan that runs, or to none: XLA's own version stays unless
something is measured to be better.

In: the program, the search's result, a device, options, an emitter, and the user's own region under
`jax.jit`. Out: an `Outcome`: the plan (or None) with everything that was tried, its time, its error
and why it was refused. Nothing is kept that fails the accuracy contract, and nothing that is not
faster than the reference by `min_gain` in the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prism_jax import progress
from prism_jax.device import Device
from prism_jax.explore.result import Candidate, SearchResult
from prism_jax.instantiate.climb import unrolls
from prism_jax.instantiate.host import Contest, Entry
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking
from prism_jax.instantiate.shortlist import shortlist
from prism_jax.instantiate.spent import Spent
from prism_jax.instantiate.strict import stricter
from prism_jax.instantiate.tune import (
    REACH,
    Clock,
    Emitter,
    Function,
    Rankings,
    Trials,
    Tuning,
    shared_values,
    survey,
)
from prism_jax.ir.program import Program
from prism_jax.options import Options

RESERVE_SHARE = 0.3
"""Of the budget, kept back from tuning for timing and checking what was tuned: a check may take a
float64 run of the program for each of a dozen draws.
"""
SHARE_OF_TIME_LEFT, FIRST_SHARE = 0.5, 0.75
"""Of the time left, what the tuning of each candidate takes, and the first tries of all."""
LAST_COMPILE_SECONDS = 10.0
HOPELESS = 1.5
"""A candidate is not measured whole if the model expects so many times the time of the best."""
FINALISTS = 3
"""Plans that are compared and checked although the time is over, where those before are refused."""
WORTH = 0.95
"""A plan is checked in place of one that has passed if it takes at most so many times its time."""
PASSING = ("no worker process", "measuring may use", "RESOURCE_EXHAUSTED", "out of memory")
"""Words of refusals that say nothing about the candidate: another time it may run."""
TRUST_MODEL_GAIN = {"gpu": 1.5, "cpu": 10.0}
"""Without measuring, a plan is taken only where the model expects at least this factor: the model
is not exact. Least of all on a host, where XLA's products run up to five times as fast as it says
and blocks do not: of the plans in the host's records one that promised 1.8x was 0.25x.
"""


@dataclass(frozen=True)
class Tried:
    """One candidate plan and what became of it. Times in seconds; `error` is the worst ratio to
    what the contract allows.
    """

    plan: Plan
    estimate: float
    bound: float
    why: str
    axioms: tuple[str, ...]
    measured: float | None = None
    error: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What instantiation decided. `plan` is None where XLA's version stays; `reference` is its
    measured time in seconds; `split` the seconds spent compiling, measuring and verifying.
    """

    plan: Plan | None
    function: Function | None
    tried: tuple[Tried, ...]
    reference: float | None
    gain: float | None
    evidence: object = None
    trials: Trials = field(default_factory=Trials)
    split: tuple[tuple[str, float], ...] = ()

    @property
    def conclusive(self) -> bool:
        """Whether the same would be decided again: not where nothing runs because of something that
        passes, such as another process that takes the memory.
        """
        reasons = (*self.trials.refusals, *(row.refused or "" for row in self.tried))
        return self.plan is not None or not any(
            words in reason for reason in reasons for words in PASSING
        )


class Judge:
    """What the caller lends to instantiation: clocks and the verifier."""

    def __init__(
        self,
        kernel_clock: Clock,
        pair: Callable[[Function, Function], tuple[float, float, float, float]],
        verify: Callable[[Plan, Function], tuple[bool, float, str, object]],
        prepare: Callable[[float], None] = lambda expected_s: None,
    ) -> None:
        self.kernel_clock, self.pair = kernel_clock, pair
        self.verify, self.prepare = verify, prepare


def choose(
    program: Program, result: SearchResult, device: Device, options: Options, emitter: Emitter,
    reference: Function, judge: Judge,
) -> Outcome:  # fmt: skip
    """The fastest plan that is right.

    `judge.prepare(seconds)` may begin what pairing will need, while kernels are being compiled;
    `judge.pair(reference, candidate)` gives (reference seconds, candidate seconds, low and high end
    of the 95 % interval of reference / candidate), measured side by side; `judge.verify` gives
    (passed, error ratio, sentence, evidence). One candidate after the other is tuned, timed and
    checked, so that there is an answer whenever the time is over.
    """
    return Choice(program, result, device, options, emitter, reference, judge).run()


class Choice:
    """The state of one choice: the best plan so far, and what became of every other.

    `run` makes the choice; `outcome` may be asked by another thread while it runs, and `stop` lets
    it end after the candidate at hand. A candidate is not begun where, by the longest one so far,
    it would end after the budget.
    """

    def __init__(
        self, program: Program, result: SearchResult, device: Device, options: Options,
        emitter: Emitter, reference: Function, judge: Judge,
    ) -> None:  # fmt: skip
        self.program, self.result, self.device, self.options = program, result, device, options
        self.reference, self.stopped = reference, False
        self.spent = Spent()
        self.emitter = self.spent.emitter(emitter)
        self.judge = Judge(
            self.spent.timed("measure", judge.kernel_clock),
            self.spent.timed("measure", judge.pair),
            self.spent.timed("verify", judge.verify),
            judge.prepare,
        )
        self.longest = 0.0
        self.refused_forms: set[str] = set()
        self.own = next(c for c in result.candidates if c.why == "XLA")
        self.deadline = time.monotonic() + options.tune_seconds
        self.trials, self.rankings = Trials(), Rankings()
        self.tunings: dict[int, Tuning] = {}  # by candidate: equal ones may differ in structure
        self.tried: list[Tried] = []
        self.best: tuple[float, Plan, Function, float, object] | None = None
        self.base: float | None = None

    def run(self) -> Outcome:
        if self.device.kind == "cpu" and self.options.tune != "off":
            self._contest()
        else:
            self._one_by_one()
        return self.outcome()

    def _contest(self) -> None:
        """On a host: everything is measured first, then the fastest that is right is taken. Where
        time is short, what is fastest after the first tries is checked before sizes are improved,
        so that there is an answer.
        """
        contest = Contest(
            self.reference, self.device, self.emitter, self.judge.kernel_clock,
            self.options.tune_seconds, self.trials,
        )  # fmt: skip
        self._show(0, 0)
        contest.first(self._shortlist(), self.program.digest)
        early = next(iter(contest.entries()), None) if contest.hurried else None
        if early is not None and early.seconds <= contest.base and not self._late():
            self._check(early)
        contest.uphill()
        waiting = [entry for entry in contest.entries() if early is None or entry != early]
        finalists = 0
        while waiting:
            # Other structures of a form that the contract refused round much like it.
            entry = min(waiting, key=lambda e: e.candidate.form.digest in self.refused_forms)
            waiting.remove(entry)
            measured = entry.seconds if math.isfinite(entry.seconds) else None
            better = early is not None and contest.weight(entry) < WORTH * contest.weight(early)
            if measured is None:
                refused = entry.why or "no time left"
            elif self.best is not None and (finalists or not better):
                refused = "slower than the plan chosen"
            elif entry.seconds > contest.base:
                refused = "slower than XLA's own version"
            elif self.stopped or ((finalists >= FINALISTS or self.best) and self._late()):
                refused = "no time left"
            else:
                finalists += 1
                self._check(entry)
                continue
            self._add(entry.plan, entry.candidate, measured=measured, refused=refused)
        self.base = self.base or (contest.base if math.isfinite(contest.base) else None)

    def _check(self, entry: Entry) -> None:
        began = time.monotonic()
        self._consider(entry.plan, entry.candidate)
        self.longest = max(self.longest, time.monotonic() - began)
        if self.tried[-1].error is not None and self.best is None:
            self.refused_forms.add(entry.candidate.form.digest)

    def _one_by_one(self) -> None:
        tuned = self.device.kind == "gpu" and self.options.tune != "off"
        if tuned and len(self.result.candidates) > 1:
            self.judge.prepare(self.own.estimate)
        candidates = self._shortlist()
        if tuned:
            candidates = self._surveyed(candidates)
        for number, candidate in enumerate(candidates):
            self._show(number, len(candidates))
            if why := self._hopeless(candidate):
                self._note(candidate, None, why)
            elif self._late():
                self._note(candidate, None, "no time left")
            else:
                for plan in self._plans(candidate):
                    if self._late():
                        self._add(plan, candidate, refused="no time left")
                        continue
                    began = time.monotonic()
                    self._consider(plan, candidate)
                    self.longest = max(self.longest, time.monotonic() - began)
        self._show(len(candidates), len(candidates))

    def _show(self, done: int, total: int) -> None:
        left = self.deadline - time.monotonic() if self.options.tune != "off" else None
        progress.note(stage="tune", done=done, total=total, best=self._gain(), left=left)

    def _gain(self) -> str:
        return f"{self.best[3]:.2f}x faster than XLA" if self.best is not None else ""

    def _shortlist(self) -> list[Candidate]:
        return shortlist(self.program, self.result, self.device, self.options, self.rankings)

    def _surveyed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, those first whose first tries are fastest."""
        ours = [c for c in candidates if c.kernels]
        if not ours or self._late():
            return list(candidates)
        clock, end = self.judge.kernel_clock, self._share(FIRST_SHARE)
        tunings = survey(ours, self.device, self.emitter, clock, end, self.trials, self.rankings)
        self.rankings.clear()  # some megabytes each; tunings keep their own
        self.tunings = {id(t.candidate): t for t in tunings}
        return sorted(candidates, key=self._expected)

    def _expected(self, candidate: Candidate) -> float:
        """Seconds of its first tries where they ran, else by the model."""
        tuning = self.tunings.get(id(candidate))
        seconds = math.inf if tuning is None else tuning.seconds
        return seconds if math.isfinite(seconds) else candidate.estimate

    def _hopeless(self, candidate: Candidate) -> str:
        """Why it is not worth measuring whole, or nothing."""
        tuning = self.tunings.get(id(candidate))
        known = tuning is not None and math.isfinite(tuning.seconds)
        if tuning is not None and known and tuning.whole:
            if tuning.seconds > REACH * self._beaten():
                return f"its kernels took {tuning.seconds * 1e6:.1f} us in first tries"
        elif self.best is not None and not known and candidate.bound >= self.best[0]:
            return "its bound is no better than the plan chosen"
        elif self.best is not None and self._expected(candidate) > HOPELESS * self.best[0]:
            return "the model expects it to be slower"
        return ""

    def _beaten(self) -> float:
        """Seconds of what a plan must be faster than, as far as known."""
        known = [seconds for seconds in (self.base, self.best and self.best[0]) if seconds]
        return min(known, default=math.inf)

    def _share(self, share: float = SHARE_OF_TIME_LEFT) -> float:
        """Until when the next step may take."""
        now = time.monotonic()
        return now + (self.deadline - now - RESERVE_SHARE * self.options.tune_seconds) * share

    def _late(self) -> bool:
        """Whether no further candidate may be begun."""
        if self.stopped:
            return True
        return self.options.tune != "off" and time.monotonic() + self.longest >= self.deadline

    def stop(self) -> None:
        """No further candidate is begun."""
        self.stopped = True

    def outcome(self) -> Outcome:
        """The best so far."""
        progress.note(best=self._gain())
        tried, split, best = tuple(self.tried), self.spent.so_far(), self.best
        if best is None:
            return Outcome(None, None, tried, self.base, None, None, self.trials, split)
        _, plan, function, gain, evidence = best
        return Outcome(plan, function, tried, self.base, gain, evidence, self.trials, split)

    def _plans(self, candidate: Candidate) -> list[Plan]:
        name, graph = self.device.name, candidate.sgraph
        if not candidate.kernels:
            roots = [store.value for store in candidate.form.outputs]
            numbers = unrolls(roots) if self.device.kind == "cpu" else (0,)
            plans = [Plan(graph, "jnp", name, unroll=unroll) for unroll in numbers]
            return [p for p in plans if candidate.why != "XLA" or p.unroll]
        if self.device.kind != "gpu":
            return _untuned(candidate, self.device, "lax")
        if self.options.tune == "off":
            return _untuned(candidate, self.device, "triton")
        if (tuning := self.tunings.get(id(candidate))) is None:
            return []
        tuning.refine(self.emitter, self.judge.kernel_clock, self._share(), self._beaten())
        plan = tuning.plan()
        if plan is None:
            self._note(candidate, None, f"none of its kernels ran: {self.trials.commonest()}")
            return []
        return [plan]

    def _note(self, candidate: Candidate, plan: Plan | None, refused: str) -> None:
        backend = (
            "jnp" if not candidate.kernels else "triton" if self.device.kind == "gpu" else "lax"
        )
        shown = plan or Plan(candidate.sgraph, backend, self.device.name, candidate.sizes)
        self._add(shown, candidate, refused=refused)

    def _add(self, plan: Plan, candidate: Candidate, **changes: Any) -> None:
        row = Tried(plan, candidate.estimate, candidate.bound, candidate.why, candidate.axioms)
        self.tried.append(replace(row, **changes))

    def _consider(self, plan: Plan, candidate: Candidate) -> None:
        """Times the plan against the reference, and checks it if it is faster than any so far."""
        [function] = self.emitter.functions([plan], time.monotonic() + LAST_COMPILE_SECONDS)
        if isinstance(function, str):
            self._add(plan, candidate, refused=function)
            return
        seconds, gain = candidate.estimate, self.own.estimate / candidate.estimate
        measured: float | None = None
        if self.options.tune == "off":
            if gain < TRUST_MODEL_GAIN[self.device.kind] or self.best is not None:
                self._add(plan, candidate, refused="not measured, and the model expects too little")
                return
        else:
            try:
                self.base, seconds, low, _ = self.judge.pair(self.reference, function)
            except Exception as error:  # a launch that errors is an error, never a time
                sentence = f"does not run: {type(error).__name__}: {error}"
                self._add(plan, candidate, refused=sentence)
                return
            measured, gain = seconds, self.base / seconds
            if low < 1 + self.options.min_gain:
                sentence = f"not faster: 95 % interval of the gain starts at {low:.2f}"
                self._add(plan, candidate, measured=measured, refused=sentence)
                return
            if self.best is not None and seconds >= self.best[0]:
                self._add(plan, candidate, measured=measured, refused="slower than the plan chosen")
                return
        passed, error, sentence, evidence = self.judge.verify(plan, function)
        refused = None if passed else sentence
        self._add(plan, candidate, measured=measured, error=error, refused=refused)
        if passed:
            self.best = (seconds, plan, function, gain, evidence)
        elif plan.backend == "triton" and stricter(plan.sgraph) is not plan.sgraph:
            self._consider(replace(plan, sgraph=stricter(plan.sgraph)), candidate)


def _untuned(candidate: Candidate, device: Device, backend: str) -> list[Plan]:
    """The best plan by the ranking alone. For a GPU, whose compiler may refuse it, also that of the
    search's sizes; the symbols that kernels share are the search's in both.
    """
    kernels, own = candidate.sgraph.kernels, dict(candidate.sizes)
    shared = shared_values(candidate.sgraph, own)[0]
    plans: list[Plan] = []
    for fixed in (shared, own) if device.kind == "gpu" else (own,):
        sizes, schedules = dict(own), list[Schedule]()
        for kernel in kernels:
            mine = {s: fixed[s] for s in kernel.symbols if s in fixed}
            best = Ranking(kernel, device, mine).first(1)
            sizes |= dict(best[0][1]) if best else {}
            schedules.append(best[0][2] if best else Schedule())
        items = tuple(sorted(sizes.items()))
        plans.append(Plan(candidate.sgraph, backend, device.name, items, tuple(schedules)))
    return list(dict.fromkeys(plans))
