"""A reference and a candidate side by side, in the user's process, on the device that is there.

In: two functions of arrays and their arguments. Out: seconds of both and the 95 % interval of their
ratio. On a GPU a call of some microseconds cannot be timed by the host's clock: short functions are
timed in a chain, one jit that applies the function to several operand sets of their own (XLA merges
equal calls), as a real step would. Longer ones are called in turn on several operand sets.

On a GPU a chain of short calls mostly measures the host, which launches them; so there the seconds
are kernel durations, and the chain only has a veto: the interval's low end is the ratio of the
durations, or the chain's own high end where that says that the candidate is slower.

Invariant: samples of both are interleaved, see `timing`; the reference is compiled once for all
candidates it meets; nothing is timed that did not finish once before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prism_jax.measure import timing
from prism_jax.measure.device_time import chain, device_time

Function = Callable[..., Any]

#: Calls of one chain, and the seconds that a call takes from which on there is none.
CALLS, LONG_SECONDS = (8, 16), 5e-4
#: Seconds that a chain should take: more than its dispatch, some tens of microseconds, which then
#: overlaps with the chain before.
CHAIN_SECONDS = 3e-4
#: Memory that operand sets and results of a chain may take: a share of what is free, and the most.
SHARE, MOST_BYTES = 0.25, 2 * 2**30
#: Seconds of sampling for one comparison, and numbers of pairs.
SECONDS, PAIRS = 0.4, (9, 60)
#: Calls of one profile.
ITERATIONS = 11


class Comparison(NamedTuple):
    """Seconds of one call of each, and the 95 % interval of reference / candidate."""

    reference_s: float
    candidate_s: float
    low: float
    high: float


class Pairs:
    """Compares candidates with one reference, on the same arguments."""

    def __init__(
        self, reference: Function, args: Sequence[Any], *, seconds: float = SECONDS
    ) -> None:
        """What candidates are compared with.

        Args:
          reference: the function to beat; jitted here.
          args: arguments of both, arrays.
          seconds: how long one comparison samples, compilation not counted.
        """
        self._args, self._seconds = tuple(args), seconds
        self._single = jax.jit(reference)
        self._count: int | None = None
        self._sets: list[tuple[Any, ...]] = []
        self._reference: Callable[[], Any] = self._once
        self._device_s: float | None = None

    def against(self, candidate: Function) -> Comparison:
        """The reference and `candidate`, interleaved. Raises what running either raises."""
        if self._count is None:
            self._count = self._calls()
            self._sets = [self._args, *_copies(self._args, max(0, self._count - 1))]
            self._reference = _runner(self._single, self._sets)
        found = timing.compare(
            self._reference,
            _runner(jax.jit(candidate), self._sets),
            seconds=self._seconds,
            pairs=PAIRS,
        )
        if jax.default_backend() == "gpu":
            return self._on_device(candidate, found.high)
        return Comparison(
            found.reference_s / self._count,
            found.candidate_s / self._count,
            found.low,
            found.high,
        )

    def _on_device(self, candidate: Function, chain_high: float) -> Comparison:
        """By kernel durations, unless chains say that the candidate is slower."""
        if self._device_s is None:
            self._device_s = device_time(self._single, self._args, ITERATIONS).median_us * 1e-6
        seconds = device_time(jax.jit(candidate), self._args, ITERATIONS).median_us * 1e-6
        ratio = self._device_s / seconds
        low = ratio if chain_high >= 1.0 else min(ratio, chain_high)
        return Comparison(self._device_s, seconds, low, max(ratio, chain_high))

    def _calls(self) -> int:
        """Calls in one sample's chain; 1 means no chain."""
        results = jax.block_until_ready(self._once())
        if jax.default_backend() != "gpu":
            return 1
        start = time.perf_counter()
        for _ in range(8):
            results = self._once()
        jax.block_until_ready(results)
        seconds = (time.perf_counter() - start) / 8
        size = max(1, _bytes(self._args) + _bytes(results))
        if seconds > LONG_SECONDS:
            return 1
        fitting = _memory() // size
        wanted = min(max(math.ceil(CHAIN_SECONDS / seconds), CALLS[0]), CALLS[1])
        return max(1, min(wanted, fitting))

    def _once(self) -> Any:
        return self._single(*self._args)


def pair(
    reference: Function, candidate: Function, args: Sequence[Any], *, seconds: float = SECONDS
) -> Comparison:
    """One comparison; `Pairs` is for several candidates of one reference.

    Args:
      reference: the function to beat.
      candidate: the other one.
      args: arrays that both take.
      seconds: how long to sample, compilation not counted.
    """
    return Pairs(reference, args, seconds=seconds).against(candidate)


def _runner(function: Function, sets: Sequence[tuple[Any, ...]]) -> Callable[[], Any]:
    if len(sets) == 1:
        return lambda: function(*sets[0])
    run = chain(function, len(sets))
    # The results of the last call stand for all: they are ready when the chain has ended, and the
    # others' memory is free for the next chain.
    return lambda: run(sets)[-1]


def _copies(args: tuple[Any, ...], count: int) -> list[tuple[Any, ...]]:
    return [jax.tree.map(jnp.copy, args) for _ in range(count)]


def _memory() -> int:
    """Bytes that operand sets and results may take."""
    known = jax.local_devices()[0].memory_stats() or {}
    limit = known.get("bytes_limit")
    if limit is None:
        return MOST_BYTES
    return min(MOST_BYTES, int(SHARE * max(0, limit - known.get("bytes_in_use", 0))))


def _bytes(values: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(values))
