"""A reference and a candidate side by side, in the user's process, on the device that is there.

In: two functions of arrays and their arguments. Out: seconds of both and the 95 % interval of their
ratio. On a GPU a call of some microseconds cannot be timed by the host's clock: short functions are
timed in chains of two lengths (`chains.py`), as a real step would run them. Longer ones are called
in turn.

On a GPU the seconds are kernel durations, and the chains only have a veto: the interval's low end
is the ratio of the durations, or the chains' own ratio where that says that the candidate is slower
(launches, gaps and copies are in it; a kernel of two microseconds may gain less than its launch
costs). Their median decides and not the end of their interval: XLA's version wins in doubt. What
would still win is called alone, too, and not kept if the host's clock says beyond doubt that such a
call takes longer.

Invariant: samples of both are interleaved, see `timing`; the reference is compiled once for all
candidates it meets; nothing is timed that did not finish once before.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from prism_jax.emit.compile import CompileError
from prism_jax.measure import chains, timing
from prism_jax.measure.chains import Program
from prism_jax.measure.device_time import device_time

Function = Callable[..., Any]

#: Calls of the two chains, and the seconds that a call takes from which on there is none.
CALLS, LONG_SECONDS = (4, 20), 5e-4
#: Memory that operands and results of a chain may take: a share of what is free, and the most.
SHARE, MOST_BYTES = 0.25, 2 * 2**30
#: Seconds of sampling for one comparison, and numbers of pairs.
SECONDS, PAIRS = 0.4, (9, 60)
#: Calls of one profile.
ITERATIONS = 11


#: How it shows that something cannot be chained.
FAILURES = chains.NoChainError, jax.errors.JaxRuntimeError, CompileError


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
        self._device_s: float | None = None
        self._chain: chains.Chain | None = None
        self._runs: tuple[Program, Program] | None = None

    def prepare(self, expected_s: float) -> None:
        """Compiles the reference for a GPU without running it. What fails here fails again where it
        is needed.

        Args:
          expected_s: seconds that a call of it is expected to take.
        """
        if jax.default_backend() == "gpu":
            runs = self._chained_reference() if expected_s <= LONG_SECONDS else None
            with contextlib.suppress(*FAILURES):
                chains.compile_all([Program(self._single, self._args), *(runs or ())])

    def against(self, candidate: Function) -> Comparison:
        """The reference and `candidate`, interleaved. Raises what running either raises."""
        if jax.default_backend() == "gpu":
            return self._on_device(candidate)
        jitted = jax.jit(candidate)
        found = timing.compare(
            self._once, lambda: jitted(*self._args), seconds=self._seconds, pairs=PAIRS
        )
        return Comparison(found.reference_s, found.candidate_s, found.low, found.high)

    def _on_device(self, candidate: Function) -> Comparison:
        """By kernel durations, unless chains or single calls say that the candidate is slower."""
        if self._device_s is None:
            self._device_s = device_time(self._single, self._args, ITERATIONS).median_us * 1e-6
            self._start_chains(self._device_s)
        jitted = jax.jit(candidate)
        chained = self._chain.programs(jitted) if self._chain is not None else None
        chains.compile_all([Program(jitted, self._args), *(chained or ())])
        seconds = device_time(jitted, self._args, ITERATIONS).median_us * 1e-6
        low = high = self._device_s / seconds
        low, high = self._chained(low, chained)
        if low > 1.0:
            alone = self._alone(jitted)
            low = low if alone >= 1.0 else alone
        return Comparison(self._device_s, seconds, low, high)

    def _chained_reference(self) -> tuple[Program, Program] | None:
        """The reference's two chains, with what candidates are chained with; None where the
        reference itself cannot be chained: that says nothing about any candidate.
        """
        if self._chain is None:
            try:
                self._chain = chains.Chain.of(self._single, self._args, CALLS, _memory())
                self._runs = self._chain.programs(self._single)
            except FAILURES:
                self._chain = self._runs = None
        return self._runs

    def _start_chains(self, seconds: float) -> None:
        """Runs the reference's chains, so that they can be timed. Long calls are timed as they are:
        then there are none.
        """
        runs = self._chained_reference() if seconds <= LONG_SECONDS else None
        try:
            if runs is not None:
                chains.compile_all(runs)
                chains.warmed(runs)
        except FAILURES:
            runs = None
        if runs is None:
            self._chain = self._runs = None

    def _chained(
        self, ratio: float, programs: tuple[Program, Program] | None
    ) -> tuple[float, float]:
        """The interval of reference / candidate after the chains' veto on `ratio`."""
        if programs is None or self._runs is None:
            return ratio, ratio
        other = chains.warmed(programs)
        veto, _, high = chains.gain(self._runs, other, seconds=self._seconds, pairs=PAIRS)
        low = ratio if veto >= 1.0 else min(ratio, veto)
        return low, max(ratio, high) if math.isfinite(high) else ratio

    def _alone(self, candidate: Function) -> float:
        """The high end of the interval of reference / candidate in single calls. The host's clock
        has its own part in every call, so only its whole interval says anything.
        """
        found = timing.compare(
            self._once, lambda: candidate(*self._args), seconds=self._seconds, pairs=PAIRS
        )
        return found.high

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


def _memory() -> int:
    """Bytes that operand sets and results may take."""
    known = jax.local_devices()[0].memory_stats() or {}
    limit = known.get("bytes_limit")
    if limit is None:
        return MOST_BYTES
    return min(MOST_BYTES, int(SHARE * max(0, limit - known.get("bytes_in_use", 0))))
