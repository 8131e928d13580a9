"""The contest of plans on a host: all structures at a few sizes, then uphill from the fastest.

In: candidates, and the user's own version. Out: the fastest plan of each candidate with its time,
fastest first, at any moment, and the time of the user's own version in the same run. Nothing is
checked here and no gain is claimed: whoever calls compares the winners with the reference properly
and verifies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from prism_jax import progress
from prism_jax.device import Device
from prism_jax.explore.result import Candidate
from prism_jax.instantiate.climb import Climb, unrolls
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.tune import Clock, Emitter, Trials

__all__ = ["Contest", "Entry"]

FIRST, NEAR, ROUNDS = 3, 6, 3
"""Sizes of each structure at first; neighbours of the fastest in a round; rounds."""
WORTH_CLIMBING = 1.25
"""Uphill from structures that took at most so many times what the fastest took."""
HOPELESS = 1.6
"""No climbing where the fastest takes so many times what the user's own version takes."""
LEAST_STEP = 0.04
SHARES = (0.4, 0.7)
"""Parts of the time until which first tries start, and neighbours."""
CHECK_SECONDS, CHECK_CALLS, CHECK_SHARE = 2.5, 40, 0.5
"""What is left for checking the winner: at least so many seconds, and what so many calls of the
user's own version take, but at most this part of the time.
"""
OWN_FORM = 0.9
"""The user's own form is taken for so many times its time: it rounds as the user's program does,
and a form that is refused for its rounding has cost a check.
"""

LATE = "no time left"
"""Words of a failure that says nothing about the plan; what failed otherwise is not tried again."""

Function = Callable[..., Sequence[Any]]


@dataclass(frozen=True)
class Entry:
    """A plan and the seconds that it took; infinite: it was not measured, and `why` says why."""

    plan: Plan
    candidate: Candidate
    seconds: float
    why: str = ""


class Contest:
    """One contest: `first`, then `uphill`; `entries` says how it stands. `hurried`: the first tries
    did not all have their turn.
    """

    def __init__(
        self, reference: Function, device: Device, emitter: Emitter, clock: Clock, seconds: float,
        trials: Trials,
    ) -> None:  # fmt: skip
        """What plans are measured with.

        Args:
          reference: the user's own version.
          device: what plans are made for.
          emitter: turns plans into functions.
          clock: times functions that compete.
          seconds: for everything.
          trials: where tries are counted.
        """
        self.reference, self.device = reference, device
        self.emitter, self.clock, self.trials = emitter, clock, trials
        self.start, self.seconds = time.monotonic(), seconds
        self.base = self.fastest = math.inf
        self.wanted = 0
        self.failures: dict[Plan, str] = {}
        self.broken: set[Plan] = set()
        self.own, self.hurried = "", False
        self.climbs: list[Climb] = []
        self.firsts: list[list[Plan]] = []
        self.forms: dict[Plan, Candidate] = {}
        self.form_times: dict[Plan, float] = {}

    def first(self, candidates: Sequence[Candidate], own: str) -> None:
        """First tries of every candidate; `own`: digest of the user's form. Where none of them was
        measured in its time, the time for what comes after is theirs.
        """
        self.own = own
        self.climbs = [Climb(c, self.device) for c in candidates if c.kernels]
        self.forms = {p: c for c in candidates if not c.kernels for p in self._by_library(c, own)}
        leaders = _leaders(self.climbs)
        self.firsts = [c.first(FIRST if c in leaders else 1) for c in self.climbs]
        turns = [plan for turn in zip_longest(*self.firsts) for plan in turn if plan is not None]
        plans = [*turns, *self.forms]
        times = self._times(plans, self.until[0])
        self.hurried = any(LATE in self.failures.get(plan, "") for plan in plans)
        if self.hurried and not times:
            times = self._times([p for p in plans if p not in self.broken], self.until[1])
        for climb, mine in zip(self.climbs, self.firsts, strict=True):
            climb.times |= {plan: times[plan] for plan in mine if plan in times}
        self.form_times = {plan: times.get(plan, math.inf) for plan in self.forms}

    @property
    def until(self) -> tuple[float, ...]:
        """When first tries end, and neighbours (`time.monotonic()`)."""
        calls = CHECK_CALLS * self.base if self.base < math.inf else 0.0
        check = min(max(CHECK_SECONDS, calls), CHECK_SHARE * self.seconds)
        most = min(SHARES[-1] * self.seconds, self.seconds - check)
        return tuple(self.start + share / SHARES[-1] * most for share in SHARES)

    def entries(self) -> list[Entry]:
        """The fastest plan of each candidate so far, fastest first."""
        entries = [
            self._entry(climb, plans[0])
            for climb, plans in zip(self.climbs, self.firsts, strict=True)
        ]
        entries += [
            Entry(plan, candidate, self.form_times[plan], self.failures.get(plan, ""))
            for plan, candidate in self.forms.items()
        ]
        return sorted(entries, key=self.weight)

    def weight(self, entry: Entry) -> float:
        """By what entries are ordered: seconds, less for what is sure to be right."""
        return entry.seconds * (OWN_FORM if entry.candidate.form.digest == self.own else 1.0)

    def _by_library(self, candidate: Candidate, own: str) -> list[Plan]:
        roots = [store.value for store in candidate.form.outputs]
        plans = [
            Plan(candidate.sgraph, "jnp", self.device.name, unroll=unroll)
            for unroll in unrolls(roots)
        ]
        return [plan for plan in plans if candidate.form.digest != own or plan.unroll]

    def _entry(self, climb: Climb, first: Plan) -> Entry:
        plan = climb.best or first
        return Entry(plan, climb.candidate, climb.seconds, self.failures.get(plan, ""))

    def uphill(self) -> None:
        """Improves the structures that may still win, the fastest first, and gives what it finds
        to the other forms of the same structure.
        """
        self._uphill(self.climbs)
        self.trials.rows += [row for climb in self.climbs for row in climb.rows()]

    def _uphill(self, climbs: Sequence[Climb]) -> None:
        fastest = min((climb.seconds for climb in climbs), default=math.inf)
        if not fastest < HOPELESS * self.base:
            return
        done: set[str] = set()
        for climb in sorted(climbs, key=lambda c: c.seconds):
            if climb.seconds > WORTH_CLIMBING * fastest or climb.candidate.why in done:
                continue
            done.add(climb.candidate.why)
            for _ in range(ROUNDS):
                before = climb.seconds
                self._compare(climb, climb.around(NEAR))
                if climb.seconds > before * (1 - LEAST_STEP):
                    break
            alike = [c for c in climbs if c.candidate.why == climb.candidate.why and c is not climb]
            for other in alike:
                best = climb.best
                if best is not None and other.fits(best) and other.times:
                    self._compare(other, [other.plan(dict(best.sizes), best.unroll)])

    def _compare(self, climb: Climb, plans: Sequence[Plan]) -> None:
        """Measures plans beside the climb's best. What counts is the ratio to it, since the machine
        may be faster or slower now.
        """
        best, seconds = climb.best, climb.seconds
        plans = [plan for plan in plans if plan not in self.broken]
        if best is None or not plans or time.monotonic() >= self.until[1]:
            return
        times = self._times([best, *plans], self.until[1])
        scale = seconds / times.get(best, seconds)
        climb.times |= {plan: times[plan] * scale for plan in plans if plan in times}

    def _times(self, plans: Sequence[Plan], until: float) -> dict[Plan, float]:
        """Seconds of the plans that run, beside the reference where that is not known yet."""
        running: list[tuple[Plan | None, Function]] = []
        if self.base == math.inf:
            running.append((None, self.reference))
        self.wanted += len(running) + len(plans)
        progress.note(total=self.wanted)
        built = self.emitter.functions(plans, until)
        for plan, function in zip(plans, built, strict=True):
            if isinstance(function, str):
                progress.advance()
                self._fail(plan, function)
            else:
                running.append((plan, function))
        self.trials.compiled += len(running)
        seconds = self.clock([f for _, f in running], plans[0].sgraph, until) if plans else []
        found: dict[Plan, float] = {}
        for (plan, _), measured in zip(running, seconds, strict=True):
            if plan is None:
                self.base = measured if isinstance(measured, float) else math.inf
            elif isinstance(measured, str):
                self._fail(plan, measured)
            else:
                self.trials.measured += 1
                found[plan] = measured
        self.fastest = min((self.fastest, *found.values()))
        if self.fastest < self.base < math.inf:
            progress.note(best=f"{self.base / self.fastest:.2f}x faster than XLA, unchecked")
        return found

    def _fail(self, plan: Plan, sentence: str) -> None:
        self.failures[plan] = sentence
        if LATE not in sentence:
            self.broken.add(plan)
        self.trials.refuse(sentence)


def _leaders(climbs: Sequence[Climb]) -> list[Climb]:
    """One form of each structure: the model's favourite. What is learnt of its sizes serves the
    others.
    """
    found: dict[str, Climb] = {}
    for climb in climbs:
        found.setdefault(climb.candidate.why, climb)
    return list(found.values())
