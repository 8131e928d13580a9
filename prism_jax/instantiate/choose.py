"""From ranked candidates to the plan that runs, or to none: XLA's own version stays unless
something is measured to be better.

In: the program, the search's result, a device, options, an emitter, and the user's own region under
`jax.jit`. Out: an `Outcome`: the plan (or None) with everything that was tried, its time, its error
and why it was refused. Nothing is kept that fails the accuracy contract, and nothing that is not
faster than the reference by `min_gain` in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prism_jax.device import Device
from prism_jax.explore.result import Candidate, SearchResult
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking
from prism_jax.instantiate.tune import Clock, Emitter, Function, Trials, tune
from prism_jax.ir.nodes import Pointwise, Reduce
from prism_jax.ir.program import Program
from prism_jax.options import Options

UNROLL_UP_TO = 128
STRUCTURES = 4
FORMS = 4
TRUST_MODEL_GAIN = 1.5
"""Without measuring, a plan is taken only where the model expects at least this factor: the model
is not exact.
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
    measured time in seconds.
    """

    plan: Plan | None
    function: Function | None
    tried: tuple[Tried, ...]
    reference: float | None
    gain: float | None
    evidence: object = None
    trials: Trials = field(default_factory=Trials)


class Judge:
    """What the caller lends to instantiation: clocks and the verifier. One object so that each can
    be replaced in a test.
    """

    def __init__(
        self,
        kernel_clock: Clock,
        pair: Callable[[Function, Function], tuple[float, float, float, float]],
        verify: Callable[[Plan, Function], tuple[bool, float, str, object]],
    ) -> None:
        self.kernel_clock, self.pair, self.verify = kernel_clock, pair, verify


def choose(
    program: Program, result: SearchResult, device: Device, options: Options, emitter: Emitter,
    reference: Function, judge: Judge,
) -> Outcome:  # fmt: skip
    """The fastest plan that is right.

    `judge.pair(reference, candidate)` gives (reference seconds, candidate seconds, low and high end
    of the 95 % interval of reference / candidate), measured side by side; `judge.verify` gives
    (passed, error ratio, sentence, evidence).
    """
    deadline = time.monotonic() + options.tune_seconds
    trials = Trials()
    plans = _plans(program, result, device, options, emitter, judge, deadline, trials)
    functions = emitter.functions([plan for plan, _ in plans], deadline)
    tried: list[Tried] = []
    best: tuple[float, Plan, Function, float, object] | None = None
    base: float | None = None
    for (plan, candidate), function in zip(plans, functions, strict=True):
        row = Tried(plan, candidate.estimate, candidate.bound, candidate.why, candidate.axioms)
        if isinstance(function, str):
            tried.append(_with(row, refused=function))
            continue
        if best is not None and candidate.bound >= best[0]:
            tried.append(
                _with(row, refused="not measured: its bound is no better than the plan chosen")
            )
            continue
        if options.tune == "off" or time.monotonic() > deadline:
            tried.append(
                _with(row, refused="not measured: no time left" if options.tune != "off" else None)
            )
            if options.tune == "off" and best is None and _trusted(candidate, result):
                passed, error, sentence, evidence = judge.verify(plan, function)
                tried[-1] = _with(row, error=error, refused=None if passed else sentence)
                if passed:
                    best = (candidate.estimate, plan, function, _gain(candidate, result), evidence)
            continue
        try:
            base, seconds, low, _ = judge.pair(reference, function)
        except Exception as error:  # a launch that errors is an error, never a time
            tried.append(_with(row, refused=f"does not run: {type(error).__name__}: {error}"))
            continue
        row = _with(row, measured=seconds)
        if low < 1 + options.min_gain:
            tried.append(
                _with(row, refused=f"not faster: 95 % interval of the gain starts at {low:.2f}")
            )
            continue
        if best is not None and seconds >= best[0]:
            tried.append(_with(row, refused="slower than the plan chosen"))
            continue
        passed, error, sentence, evidence = judge.verify(plan, function)
        row = _with(row, error=error, refused=None if passed else sentence)
        tried.append(row)
        if passed:
            best = (seconds, plan, function, base / seconds, evidence)
    if best is None:
        return Outcome(None, None, tuple(tried), base, None, None, trials)
    _, plan, function, gain, evidence = best
    return Outcome(plan, function, tuple(tried), base, gain, evidence, trials)


def _with(row: Tried, **changes: Any) -> Tried:
    from dataclasses import replace

    return replace(row, **changes)


def _trusted(candidate: Candidate, result: SearchResult) -> bool:
    return _gain(candidate, result) >= TRUST_MODEL_GAIN


def _gain(candidate: Candidate, result: SearchResult) -> float:
    own = next(c.estimate for c in result.candidates if c.why == "XLA")
    return own / candidate.estimate


def _plans(
    program: Program, result: SearchResult, device: Device, options: Options, emitter: Emitter,
    judge: Judge, deadline: float, trials: Trials,
) -> list[tuple[Plan, Candidate]]:  # fmt: skip
    """The plans worth measuring whole: other forms by XLA, and the best structures with kernels of
    ours, tuned.
    """
    found: list[tuple[Plan, Candidate]] = []
    own = next(c for c in result.candidates if c.why == "XLA")
    forms = [c for c in result.candidates if not c.kernels]
    if options.backend in (None, "jnp"):
        for candidate in forms[: FORMS + 1]:
            for unroll in _unrolls(candidate, device):
                if candidate.why != "XLA" or unroll:
                    found.append(
                        (Plan(candidate.sgraph, "jnp", device.name, unroll=unroll), candidate)
                    )
    backend = "triton" if device.kind == "gpu" else "lax"
    if options.backend in (None, backend):
        ours = [c for c in result.candidates if c.kernels]
        worth = [c for c in ours if c.estimate < own.estimate * 1.5] or ours[:1]
        for candidate in _distinct(worth)[:STRUCTURES]:
            if backend == "triton" and options.tune != "off":
                plan = tune(candidate, device, emitter, judge.kernel_clock, deadline, trials)
            else:
                plan = _untuned(candidate, device, backend)
            if plan is not None:
                found.append((plan, candidate))
    return found


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate for each way of cutting into kernels: near-copies would only repeat the
    measurement.
    """
    seen: set[tuple[object, ...]] = set()
    kept: list[Candidate] = []
    for candidate in candidates:
        key = (candidate.why, candidate.kernels, candidate.form.digest)
        if key not in seen:
            seen.add(key)
            kept.append(candidate)
    return kept


def _untuned(candidate: Candidate, device: Device, backend: str) -> Plan:
    sizes = dict(candidate.sizes)
    schedules: list[Schedule] = []
    for kernel in candidate.sgraph.kernels:
        mine = {s: sizes[s] for s in kernel.symbols}
        best = Ranking(kernel, device, mine).first(1)
        schedules.append(best[0][2] if best else Schedule())
    return Plan(candidate.sgraph, backend, device.name, candidate.sizes, tuple(schedules))


def _unrolls(candidate: Candidate, device: Device) -> tuple[int, ...]:
    """Whether reductions of non-products are also tried as sums of slices, which a CPU's vector
    units like.
    """
    if device.kind != "cpu":
        return (0,)
    for node in candidate.form.nodes:
        if isinstance(node, Reduce) and not (
            isinstance(node.body, Pointwise) and node.body.op == "mul"
        ):
            sizes = [a.size for a in node.axes if isinstance(a.size, int)]
            if node.monoid in ("sum", "max", "min") and max(sizes, default=0) <= UNROLL_UP_TO:
                return (0, UNROLL_UP_TO)
    return (0,)
