"""How the pipeline instantiates: what it lends to `instantiate` (emitter, clocks, checker).

In: a region, what the search found for it, a device, options. Out: `instantiate`'s outcome.
Measuring and testing run aside from the function being traced (a thread of its own), so nothing of
theirs is recorded in it. Invariant: nothing is measured where `options.tune` is "off".
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax import compat, emit, instantiate
from prism_jax.device import Device
from prism_jax.explore import SearchResult
from prism_jax.ir.nodes import Tensor
from prism_jax.options import Options
from prism_jax.verify import contract

Function = Callable[..., Sequence[Any]]

#: Rounds of a paired measurement, and the time that one round takes at least.
ROUNDS, ROUND_SECONDS = 9, 0.01


def choose(region: Any, found: SearchResult, device: Device, options: Options) -> Any:
    """The fastest plan for a region that is right, or none (see `instantiate.choose`)."""
    program, closed = region.program, region.jaxpr

    def reference(*args: Any) -> list[Any]:
        return compat.evaluate(closed, *args)

    inputs = program.inputs

    def pair(ours: Function, theirs: Function) -> tuple[float, float, float, float]:
        arrays = random_inputs(inputs)
        return paired(jax.jit(ours), jax.jit(theirs), arrays)

    def clock(function: Function, sgraph: Any) -> float:
        run = jax.jit(function)
        arrays = random_inputs(sgraph.inputs)
        count = _calls(run, arrays)
        return min(_seconds(run, arrays, count) for _ in range(3))

    def verify(plan: Any, function: Function) -> tuple[bool, float, str, object]:
        del plan
        checked = contract.check(
            program, jax.jit(reference), jax.jit(function), accuracy=options.accuracy
        )
        return checked.passed, checked.worst, str(checked), checked

    judge = instantiate.Judge(clock, pair, verify)
    return compat.aside(
        lambda: instantiate.choose(program, found, device, options, Emitter(), reference, judge)
    )


class Emitter:
    """Plans as functions; a plan that cannot be emitted becomes the sentence that says why."""

    def functions(self, plans: Sequence[Any], deadline: float) -> list[Function | str]:
        """One function or sentence per plan; what is not reached before the deadline is refused."""
        return [self._one(plan, deadline) for plan in plans]

    def _one(self, plan: Any, deadline: float) -> Function | str:
        if time.monotonic() > deadline:
            return "not emitted: no time left"
        try:
            return emit.emit(plan).call
        except Exception as error:
            return f"not emitted: {type(error).__name__}: {error}"


def random_inputs(tensors: Sequence[Tensor], seed: int = 0) -> list[jax.Array]:
    """Arrays to measure with: normal floats, small non-negative integers, booleans."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(_random(rng, tensor)) for tensor in tensors]


def _random(rng: np.random.Generator, tensor: Tensor) -> Any:
    shape = tuple(int(size) for size in tensor.shape)
    dtype = jnp.dtype(tensor.dtype)
    if dtype == jnp.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if jnp.issubdtype(dtype, jnp.integer):
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


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
    # Order statistics: for 9 draws the 2nd and 8th enclose the median with 96 % confidence.
    low, high = ratios[1], ratios[-2]
    return (
        statistics.median(first for first, _ in rounds),
        statistics.median(second for _, second in rounds),
        low,
        high,
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
