"""How the pipeline instantiates: what it lends to `instantiate` (builder, clocks, checker).

In: a region, what the search found for it, a device, options. Out: `instantiate`'s outcome, whose
`function` runs the plan. Compiling, measuring and testing run aside from the function being traced
(a thread of its own), so nothing of theirs is recorded in it. Invariant: the reference that a plan
has to beat and the one whose error it may double are the user's own equations under `jax.jit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax

from prism_jax import compat, instantiate
from prism_jax.device import Device
from prism_jax.explore import SearchResult
from prism_jax.launch.build import Builder
from prism_jax.measure import device_time, timing
from prism_jax.measure.clock import kernel_clock
from prism_jax.measure.inputs import random_inputs
from prism_jax.options import Options
from prism_jax.verify import contract

Function = Callable[..., Sequence[Any]]

#: Seconds of one paired measurement, and its numbers of pairs.
PAIR_SECONDS, PAIRS = 0.5, (7, 60)
#: Calls in the chain that stands for a real step on a GPU.
CHAIN = 16


def choose(region: Any, found: SearchResult, device: Device, options: Options) -> Any:
    """The fastest plan for a region that is right, or none (see `instantiate.choose`)."""
    program, closed = region.program, region.jaxpr

    def reference(*args: Any) -> list[Any]:
        return compat.evaluate(closed, *args)

    def pair(ours: Function, theirs: Function) -> tuple[float, float, float, float]:
        return paired(ours, theirs, random_inputs(program.inputs), device)

    def verify(plan: Any, function: Function) -> tuple[bool, float, str, object]:
        del plan
        checked = contract.check(
            program, jax.jit(reference), jax.jit(function), accuracy=options.accuracy
        )
        return checked.passed, checked.worst, checked.reason, checked

    judge, builder = instantiate.Judge(kernel_clock, pair, verify), cast(Any, Builder(device))
    return compat.aside(
        lambda: instantiate.choose(program, found, device, options, builder, reference, judge)
    )


def paired(
    ours: Function, theirs: Function, arrays: Sequence[Any], device: Device
) -> tuple[float, float, float, float]:
    """Seconds a call of two functions, measured in turns, and the 95 % interval of their ratio.

    On a GPU a sample is a chain of calls in one program, as in a real step, where launches overlap;
    elsewhere it is single calls.

    Returns:
      (median of the first, median of the second, low and high end of first / second).
    """
    args, calls = tuple(arrays), 1
    if device.kind == "gpu":
        sets = device_time.operand_sets(arrays, device.l2_bytes, cold=False)[:CHAIN]
        args, calls = (sets,), len(sets)
        first, second = (device_time.chain(function, calls) for function in (ours, theirs))
    else:
        first, second = jax.jit(ours), jax.jit(theirs)
    result = timing.compare(
        lambda: first(*args), lambda: second(*args), seconds=PAIR_SECONDS, pairs=PAIRS
    )
    return result.reference_s / calls, result.candidate_s / calls, result.low, result.high
