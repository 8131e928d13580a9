"""The clock that tuning reads on a host: functions that compete, timed by turns.

In: traceable functions of the same arguments. Out: for each the least seconds of a call, or a
sentence that says why there are none. Invariants: samples are interleaved, so that a busy moment of
the machine meets all of them; compiling is not timed; what is hopelessly slower than the best is
sampled once; nothing is waited for after the deadline, nor so long for one function that another
which is still to come would have no chance (XLA's compiler cannot be interrupted: it is left to end
alone).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from prism_jax import compat, progress
from prism_jax.ir.sgraph import SGraph
from prism_jax.measure.inputs import random_inputs

Function = Callable[..., Any]

HOPELESS = 1.6
"""A function is not sampled again once it took so many times what the best took."""
ROUNDS, SECONDS = (3, 12), 0.15
"""Rounds of samples, and the seconds per function that may go into them beyond the fewest."""
SHARE, USUAL, LEAST_SECONDS = 0.5, 3.0, 1.5
"""How long a function may compile and run once: this share of the time left, or so many times what
the slowest before it took, or these seconds, whatever is most.
"""


def host_clock(functions: Sequence[Function], sgraph: SGraph, deadline: float) -> list[float | str]:
    """Seconds of one call of each function on random inputs of the sGraph's tensors.

    Args:
      functions: traceable; of right ones, all return the same.
      sgraph: its inputs' sizes are numbers.
      deadline: `time.monotonic()` after which nothing is waited for.
    """
    import jax

    arguments = random_inputs(sgraph.inputs)
    found: list[float | str] = []
    calls: list[Function] = []
    slowest = 0.0
    for number, function in enumerate(functions, 1):
        calls.append(jax.jit(function))
        start = time.monotonic()
        left = deadline - start
        # The first is the yardstick of the others; after the last comes nothing.
        alone = number in (1, len(functions))
        limit = left if alone else min(left, max(SHARE * left, USUAL * slowest, LEAST_SECONDS))
        found.append(_first(calls[-1], arguments, limit))
        if isinstance(found[-1], float):
            slowest = max(slowest, time.monotonic() - start)
        progress.advance()
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


def _first(call: Function, arguments: Sequence[Any], limit: float) -> float | str:
    """Seconds of the second call; a sentence where two calls do not end in `limit` seconds."""
    import jax

    def run() -> float:
        jax.block_until_ready(call(*arguments))
        return _once(call, arguments)

    if limit <= 0.0:
        return "not measured: no time left"
    try:
        return compat.aside(run, limit)
    except TimeoutError:
        return f"did not end in {limit:.2g} s"
    except Exception as error:  # a candidate that does not run is an answer
        return f"does not run: {type(error).__name__}: {error}"


def _once(call: Function, arguments: Sequence[Any]) -> float:
    import jax

    start = time.perf_counter()
    jax.block_until_ready(call(*arguments))
    return time.perf_counter() - start


def _seconds(found: float | str) -> float:
    return found if isinstance(found, float) else math.inf
