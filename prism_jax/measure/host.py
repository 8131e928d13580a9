"""The clock that tuning reads on a host: functions that compete, timed by turns.

In: traceable functions of the same arguments. Out: for each the least seconds of a call, or a
sentence that says why there are none. Invariants: samples are interleaved, so that a busy moment of
the machine meets all of them; compiling is not timed; what is hopelessly slower than the best is
sampled once; nothing starts after the deadline.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from prism_jax.ir.sgraph import SGraph
from prism_jax.measure.inputs import random_inputs

Function = Callable[..., Any]

HOPELESS = 1.6
"""A function is not sampled again once it took so many times what the best took."""
ROUNDS, SECONDS = (3, 12), 0.15
"""Rounds of samples, and the seconds per function that may go into them beyond the fewest."""


def host_clock(functions: Sequence[Function], sgraph: SGraph, deadline: float) -> list[float | str]:
    """Seconds of one call of each function on random inputs of the sGraph's tensors.

    Args:
      functions: traceable; of right ones, all return the same.
      sgraph: its inputs' sizes are numbers.
      deadline: `time.monotonic()` after which no function is compiled.
    """
    import jax

    arguments = random_inputs(sgraph.inputs)
    found: list[float | str] = []
    calls: list[Function] = []
    for function in functions:
        calls.append(jax.jit(function))
        if time.monotonic() >= deadline:
            found.append("not measured: no time left")
            continue
        try:
            jax.block_until_ready(calls[-1](*arguments))
            found.append(_once(calls[-1], arguments))
        except Exception as error:  # a candidate that does not run is an answer
            found.append(f"does not run: {type(error).__name__}: {error}")
    started, running = time.monotonic(), [n for n, s in enumerate(found) if isinstance(s, float)]
    for round_ in range(ROUNDS[1]):
        best = min((s for s in found if isinstance(s, float)), default=math.inf)
        running = [n for n in running if _seconds(found[n]) <= HOPELESS * best]
        enough = round_ >= ROUNDS[0] and time.monotonic() - started > SECONDS * len(functions)
        if enough or time.monotonic() >= deadline:
            break
        for n in running if round_ % 2 else running[::-1]:
            found[n] = min(_seconds(found[n]), _once(calls[n], arguments))
    return found


def _once(call: Function, arguments: Sequence[Any]) -> float:
    import jax

    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    return time.perf_counter() - start


def _seconds(found: float | str) -> float:
    return found if isinstance(found, float) else math.inf
