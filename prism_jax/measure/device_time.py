"""Device time of a jax function: kernel durations, and time per call inside a captured chain.

In: a function of arrays (jitted or not) and its arguments. Out: a `Sample`, in microseconds.

Two numbers, because neither is the whole truth. Kernel durations (CUPTI, through the profiler that
ships with jax) leave out launches, gaps, memsets and copies; a chain (one jit that applies the
function many times, timed by the host's clock) has all of them, as a real step does. What
`measure` gives is a difference of two chains (`chains.py`), without the host's part in it;
`chain_time` is the plain quotient, in which the host has its part for every array.

Traps that this file knows:
* XLA merges equal calls, even across an `optimization_barrier`: every call of a chain has operands
  of its own. The barriers between calls keep XLA from fusing neighbours into one kernel.
* Whether a chain reads from the L2 cache or from memory depends on the bytes of all its sets:
  `operand_sets` makes as many as leave the cache cold, or as stay within it.
* The profiler keeps the outputs of all iterations alive.
* A launch that fails is an exception from jax, and must stay one: a refused launch times as a very
  fast kernel.

Invariant: no number is made from fewer than one finished call per sample, and outputs are waited
for. `paired_ratio` is for machines without a GPU; it is `timing.compare` with a fixed count.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from prism_jax.emit.compile import CompileError
from prism_jax.measure import chains, timing

#: Samples of one chain, and iterations of one profile.
REPETITIONS = 20
#: Bytes that the operand sets of a chain may take, whatever the cache.
MOST_BYTES = 2**31


@dataclasses.dataclass(frozen=True)
class Sample:
    """Time of one call.

    Attributes:
      median_us: microseconds, median over repetitions.
      spread: half the distance between the quartiles over the median.
      kernels: (name, median microseconds) in launch order; empty where kernels were not observed.
    """

    median_us: float
    spread: float
    kernels: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceTime:
    """Accelerator time of one version of a row, in microseconds.

    Attributes:
      kernel_us: sum of kernel durations, median over repetitions.
      kernel_spread: half the distance between the quartiles over the median.
      kernels: how many kernels one call launches.
      chain_us: time per call inside a captured chain of calls, from the difference of two lengths;
        None where it could not be built.
      parts: (kernel, median microseconds) in launch order.
      cold_us: kernel time per call where every call has operands of its own, together three times
        as large as the L2 cache (a chain of distinct layers); None where not asked for.
    """

    kernel_us: float
    kernel_spread: float
    kernels: int
    chain_us: float | None = None
    parts: tuple[tuple[str, float], ...] = ()
    cold_us: float | None = None

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> DeviceTime:
        """What `dataclasses.asdict` wrote, also after a trip through JSON."""
        known: dict[str, Any] = dict(values)
        known["parts"] = tuple((str(name), float(us)) for name, us in values.get("parts", ()))
        return DeviceTime(**known)


def device_time(
    function: Callable[..., Any], args: Sequence[Any], iterations: int = REPETITIONS
) -> Sample:
    """Sum of the durations of the kernels that one call launches. The L2 cache is warm.

    Args:
      function: what is timed; compiled and run once before.
      args: its arguments.
      iterations: calls that are profiled together.

    Raises:
      RuntimeError: jax does not run on a GPU, or the call launches no kernel.
    """
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"device time needs a GPU, jax runs on {jax.default_backend()}")
    profiler = import_module("jax.experimental.mosaic.gpu.profiler")
    measured = profiler.measure(function, aggregate=False, iterations=iterations)(*args)[1]
    if not measured:
        raise RuntimeError("the call launched no kernel")
    return from_profile(measured if iterations > 1 else [measured])


def chain_time(
    function: Callable[..., Any], args_list: Sequence[Sequence[Any]], repetitions: int = REPETITIONS
) -> Sample:
    """Time per call in one jitted chain of calls, one for each set of arguments, in order.

    The chain's own dispatch (some tens of microseconds) is divided among its calls: give enough
    sets. `operand_sets` makes them.
    """
    run, sets = chain(function, len(args_list)), [tuple(args) for args in args_list]
    for _ in range(2):  # compile; on a GPU the second run is the first from a command buffer
        jax.block_until_ready(run(sets))
    samples: list[float] = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(run(sets))
        samples.append((time.perf_counter() - start) * 1e6 / len(sets))
    return Sample(statistics.median(samples), _spread(samples))


def chain_device_time(
    function: Callable[..., Any],
    args_list: Sequence[Sequence[Any]],
    iterations: int = REPETITIONS,
) -> Sample:
    """Kernel durations per call in a chain: with sets larger than the cache, the cold-L2 time.

    `kernels` are those of the whole chain. Raises RuntimeError as `device_time` does.
    """
    run, sets = chain(function, len(args_list)), [tuple(args) for args in args_list]
    whole = device_time(run, (sets,), iterations)
    return dataclasses.replace(whole, median_us=whole.median_us / len(sets))


def measure(
    function: Callable[..., Any],
    args: Sequence[Any],
    reference: Callable[..., Any] | None = None,
    cold_bytes: int = 0,
) -> DeviceTime:
    """Both numbers as a benchmark record holds them.

    Args:
      function: what is timed.
      args: its arguments.
      reference: of which computations no two calls may share one (`chains.own`), the same for all
        versions of a program; None: the function's own.
      cold_bytes: size of the cache that is to be cold for a third number; 0 for none.
    """
    single = device_time(function, args)
    try:
        lengths = chains.lengths(single.median_us * 1e-6)
        chain = chains.Chain.of(reference or function, args, lengths, MOST_BYTES)
        chain_us = chain.time_us(function, REPETITIONS)
    except (chains.NoChainError, jax.errors.JaxRuntimeError, CompileError):
        chain_us = None  # the function itself has run
    return DeviceTime(
        kernel_us=single.median_us,
        kernel_spread=single.spread,
        kernels=len(single.kernels),
        chain_us=chain_us,
        parts=single.kernels,
        cold_us=_cold(function, args, cold_bytes) if cold_bytes else None,
    )


def _cold(function: Callable[..., Any], args: Sequence[Any], cold_bytes: int) -> float:
    sets = operand_sets(args, cold_bytes, cold=True)
    return chain_device_time(function, sets).median_us


def paired_ratio(
    first: Callable[..., Any], second: Callable[..., Any], args: Sequence[Any], rounds: int = 31
) -> tuple[float, tuple[float, float]]:
    """Median of (time of `first`) / (time of `second`) by the host's clock, and its 95 % interval.

    Above 1 the second is faster. Calls are interleaved, see `timing`.
    """
    paired = timing.compare(
        lambda: first(*args), lambda: second(*args), seconds=math.inf, pairs=(rounds, rounds)
    )
    return paired.ratio, (paired.low, paired.high)


def chain(function: Callable[..., Any], count: int) -> Callable[..., list[Any]]:
    """One jitted function of `count` argument tuples that calls `function` on each, in order."""

    def chained(sets: Sequence[tuple[Any, ...]]) -> list[Any]:
        if len(sets) != count:
            raise ValueError(f"a chain of {count} calls was given {len(sets)} sets of arguments")
        outputs: list[Any] = []
        for args in sets:
            if outputs:
                outputs[-1], args = jax.lax.optimization_barrier((outputs[-1], args))
            outputs.append(function(*args))
        return outputs

    return jax.jit(chained)


def operand_sets(args: Sequence[Any], l2_bytes: int, *, cold: bool) -> list[tuple[Any, ...]]:
    """Copies of `args`, as many as a chain needs to read from memory, or from the cache.

    Args:
      args: arrays; each set gets its own copies.
      l2_bytes: size of the cache, `device.current().l2_bytes`.
      cold: three times the cache or more (between the two uses of a set, everything else passes
        through it); else at most half of it, but no fewer than two sets.
    """
    size = max(1, _bytes(args))
    count = -(-3 * l2_bytes // size) if cold else l2_bytes // 2 // size
    most = max(2, MOST_BYTES // size)
    return _copies(args, min(max(2, count), most, 256))


def from_profile(iterations: Sequence[Sequence[tuple[str, float]]]) -> Sample:
    """The sample of profiled iterations: for each its kernels, (name, milliseconds), in order."""
    totals = [sum(ms for _, ms in kernels) * 1e3 for kernels in iterations]
    names = [name for name, _ in iterations[0]]
    medians = [
        statistics.median(kernels[i][1] for kernels in iterations) * 1e3 for i in range(len(names))
    ]
    return Sample(
        statistics.median(totals), _spread(totals), tuple(zip(names, medians, strict=True))
    )


def _copies(args: Sequence[Any], count: int) -> list[tuple[Any, ...]]:
    return [tuple(jax.tree.map(jnp.copy, list(args))) for _ in range(count)]


def _bytes(args: Sequence[Any]) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(list(args)))


def _spread(samples: Sequence[float]) -> float:
    if len(samples) < 2:
        return 0.0
    quarter, middle, three_quarters = statistics.quantiles(samples, n=4, method="inclusive")
    return (three_quarters - quarter) / 2 / middle
