"""How the pipeline instantiates: what it lends to `instantiate` (builder, clocks, checker).

In: a region, what the search found for it, a device, options. Out: `instantiate`'s outcome, whose
`function` runs the plan. Compiling, measuring and testing run aside from the function being traced
(a thread of its own), so nothing of theirs is recorded in it. Invariant: nothing is measured where
`options.tune` is "off".
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax

from prism_jax import compat, instantiate
from prism_jax.device import Device
from prism_jax.explore import SearchResult
from prism_jax.ir.sgraph import SGraph
from prism_jax.launch.build import Builder
from prism_jax.measure.clock import kernel_seconds, random_inputs
from prism_jax.options import Options
from prism_jax.verify import contract

Function = Callable[..., Sequence[Any]]

#: Rounds of a paired measurement, and the seconds that one round takes at least.
ROUNDS, ROUND_SECONDS = 9, 0.01


def choose(region: Any, found: SearchResult, device: Device, options: Options) -> Any:
    """The fastest plan for a region that is right, or none (see `instantiate.choose`)."""
    program, closed = region.program, region.jaxpr

    def reference(*args: Any) -> list[Any]:
        return compat.evaluate(closed, *args)

    def clock(functions: Sequence[Function], sgraph: SGraph) -> list[float | Exception]:
        return kernel_seconds(functions, random_inputs(sgraph.inputs))

    def pair(ours: Function, theirs: Function) -> tuple[float, float, float, float]:
        return paired(jax.jit(ours), jax.jit(theirs), random_inputs(program.inputs))

    def verify(plan: Any, function: Function) -> tuple[bool, float, str, object]:
        del plan
        checked = contract.check(
            program, jax.jit(reference), jax.jit(function), accuracy=options.accuracy
        )
        return checked.passed, checked.worst, checked.reason, checked

    judge, builder = instantiate.Judge(clock, pair, verify), cast(Any, Builder(device))
    return compat.aside(
        lambda: instantiate.choose(program, found, device, options, builder, reference, judge)
    )


def paired(
    ours: Function, theirs: Function, arrays: Sequence[Any]
) -> tuple[float, float, float, float]:
    """Seconds a call of two functions, measured in turns, and the 95 % interval of their ratio.

    Returns:
      (median of the first, median of the second, low and high end of first / second).
    """
    counts = _calls(ours, arrays), _calls(theirs, arrays)
    rounds = [
        (_seconds(ours, arrays, counts[0]), _seconds(theirs, arrays, counts[1]))
        for _ in range(ROUNDS)
    ]
    ratios = sorted(first / second for first, second in rounds)
    return (
        statistics.median(first for first, _ in rounds),
        statistics.median(second for _, second in rounds),
        # Of nine draws, the second and the eighth enclose the median with 96 % confidence.
        ratios[1],
        ratios[-2],
    )


def _calls(function: Function, arrays: Sequence[Any]) -> int:
    """How many calls fill a round; the first call compiles."""
    jax.block_until_ready(function(*arrays))
    seconds = min(_seconds(function, arrays, 1) for _ in range(3))
    return max(1, min(1000, round(ROUND_SECONDS / max(seconds, 1e-6))))


def _seconds(function: Function, arrays: Sequence[Any], count: int) -> float:
    start = time.perf_counter()
    result: Any = None
    for _ in range(count):
        result = function(*arrays)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / count
