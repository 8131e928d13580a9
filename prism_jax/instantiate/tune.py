"""Measured choice among ranked candidates, kernel by kernel.

Kernels of a plan run one after the other, so each is tuned alone: its best sizes and schedule do
not depend on its neighbours, except through the symbols that they share (the number of parts of a
split), which are tried one value at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from prism_jax.device import Device
from prism_jax.explore.result import Candidate
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking, Sizes, Try
from prism_jax.ir.sgraph import Kernel, LibraryCall, SGraph

Function = Callable[..., Sequence[Any]]

PER_KERNEL = 28
REFINEMENTS = 1
SHARED_VALUES = 3


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


def tune(
    candidate: Candidate,
    device: Device,
    emitter: Emitter,
    clock: Clock,
    deadline: float,
    trials: Trials,
) -> Plan | None:
    """The candidate's best measured plan, or None if none of its kernels' candidates runs before
    the deadline.
    """
    sgraph = candidate.sgraph
    best: tuple[float, Plan] | None = None
    for shared in _shared_values(sgraph, device, dict(candidate.sizes)):
        total = 0.0
        sizes: dict[str, int] = dict(shared)
        schedules: list[Schedule] = []
        for kernel in sgraph.kernels:
            found = _tune_kernel(kernel, sgraph, device, shared, emitter, clock, deadline, trials)
            if found is None:
                break
            seconds, chosen, schedule = found
            total += seconds
            sizes |= dict(chosen)
            schedules.append(schedule)
        else:
            plan = Plan(
                sgraph, "triton", device.name, tuple(sorted(sizes.items())), tuple(schedules)
            )
            if best is None or total < best[0]:
                best = (total, plan)
        if time.monotonic() > deadline:
            break
    return best[1] if best else None


def _shared_values(sgraph: SGraph, device: Device, known: dict[str, int]) -> list[dict[str, int]]:
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


def _tune_kernel(
    kernel: Kernel, sgraph: SGraph, device: Device, shared: dict[str, int],
    emitter: Emitter, clock: Clock, deadline: float, trials: Trials,
) -> tuple[float, Sizes, Schedule] | None:  # fmt: skip
    """The best sizes of one kernel: what the closed forms rank first, then what lies around the
    best of those.
    """
    mine = {s: n for s, n in shared.items() if s in kernel.symbols}
    ranking, one = Ranking(kernel, device, mine), alone(kernel, sgraph)
    times: dict[tuple[Sizes, Schedule], float] = {}

    def measure(tries: list[Try]) -> None:
        new = [t for t in tries if t[1:] not in times]
        plans = [Plan(one, "triton", device.name, sizes, (s,)) for _, sizes, s in new]
        functions = emitter.functions(plans, deadline)
        runnable: list[tuple[Try, Function]] = []
        for attempt, function in zip(new, functions, strict=True):
            if isinstance(function, str):
                trials.refuse(function)
            else:
                runnable.append((attempt, function))
        trials.compiled += len(runnable)
        seconds = clock([f for _, f in runnable], _numbers(one, shared), deadline)
        for ((guess, sizes, schedule), _), measured in zip(runnable, seconds, strict=True):
            if isinstance(measured, str):
                trials.refuse(measured)
                continue
            trials.measured += 1
            trials.rows.append((kernel.name, sizes, schedule, guess, measured))
            times[sizes, schedule] = measured

    measure(ranking.first(PER_KERNEL))
    for _ in range(REFINEMENTS):
        if not times or time.monotonic() > deadline:
            break
        best, _ = min(times, key=lambda key: times[key])
        measure(ranking.around(best))
    if not times:
        return None
    sizes, schedule = min(times, key=lambda key: times[key])
    return times[sizes, schedule], sizes, schedule


def _numbers(sgraph: SGraph, sizes: dict[str, int]) -> SGraph:
    """The sGraph with its tensors' symbolic dimensions given numbers, so that inputs can be drawn
    for them.
    """
    from dataclasses import replace

    def tensor(t: Any) -> Any:
        return replace(t, shape=tuple(sizes[s] if isinstance(s, str) else s for s in t.shape))

    return replace(
        sgraph, inputs=tuple(map(tensor, sgraph.inputs)), outputs=tuple(map(tensor, sgraph.outputs))
    )
