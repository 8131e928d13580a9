"""Which float64 oracle a check of the contract uses, and how its draws are evaluated.

numpy's (`sample.oracle`) is enough where a draw takes it a moment. Where it is dear, as many draws
as must count are evaluated in threads, or, if the caller lends a `Fast` maker, by what that makes:
XLA on an accelerator (`on_device`). Whatever fails there is done by numpy, within the time that
numpy may take. XLA and the emitters also make the candidate, so the two oracles are compared on one
draw unless that alone would take long.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeAlias

import numpy as np

from prism_jax.device import cores
from prism_jax.ir.program import Program
from prism_jax.verify.draws import Draw
from prism_jax.verify.effort import evaluators, work
from prism_jax.verify.sample import Sample, oracle, sampled

Array: TypeAlias = Any
Values: TypeAlias = Callable[[], list[Array]]

PRODUCTS_PER_SECOND, ELEMENTS_PER_SECOND = 2.0**32, 2.0**27
"""What numpy does, about, on one processor: products use all there are, all else uses one."""
DEAR, COMPARED = 0.5, 4.0
"""Seconds that numpy's oracle takes for one draw, at the most: for all draws to be made, and for a
faster one to be compared with it."""
ALIKE = 1e-6
"""Of the largest value in a row: what two evaluations in float64 may differ by."""


class Evaluator(Protocol):
    """A faster oracle of a program's samples; raises where it cannot."""

    name: str
    seconds: float

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Every output's sample, as (rows, columns)."""
        ...


Fast: TypeAlias = Callable[[Program, Sequence[Sample]], Evaluator | None]
"""Makes a faster oracle than numpy's, or None where there is none."""


class OracleError(Exception):
    """There is no oracle to go by; the message says why."""


class Oracle:
    """The float64 values of a program's samples.

    Attributes:
      dear: whether numpy would take so long that only as many draws are made as must count.
      name: what computes it, for the protocol.
    """

    def __init__(
        self,
        program: Program,
        samples: Sequence[Sample],
        needed: int,
        seconds: float,
        fast: Fast | None = None,
    ) -> None:
        """`needed` draws may take `seconds` together.

        Raises:
          OracleError: they would take longer.
        """
        self.program, self.samples, self.needed, self.seconds = program, samples, needed, seconds
        effort = work(sampled(program, samples)[0])
        self.threads = evaluators(effort, needed)
        products = PRODUCTS_PER_SECOND * cores()
        self.each = effort.seconds(products, ELEMENTS_PER_SECOND)
        self.all = needed * effort.seconds(products, ELEMENTS_PER_SECOND * self.threads)
        self.dear = self.each > DEAR
        self.fast, self.name = None, "numpy"
        if self.dear and fast is not None:
            self._take(fast)
        if self.fast is None:
            self._afford()

    def _take(self, fast: Fast) -> None:
        try:
            made = fast(self.program, self.samples)
        except Exception as error:
            self._drop("the faster oracle", error)
            return
        if made is not None and self.needed * made.seconds <= self.seconds:
            self.fast, self.name = made, made.name

    def affords(self, times: int) -> bool:
        """Whether the faster oracle may be asked so many times more."""
        return self.fast is not None and times * self.fast.seconds <= self.seconds

    def _drop(self, name: str, error: Exception) -> None:
        first = str(error).partition("\n")[0][:160]
        self.fast, self.name = None, f"numpy, since {name} failed: {type(error).__name__}: {first}"

    def _afford(self) -> None:
        if self.all > self.seconds:
            allowed = f"{self.all:.0f} s, {self.seconds:g} are allowed"
            raise OracleError(f"the float64 oracle would take {allowed} ({self.name})")

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Every output's sample, as (rows, columns).

        Raises:
          OracleError: the faster oracle failed, and numpy's would take too long.
        """
        if self.fast is not None:
            try:
                return self.fast(inputs)
            except Exception as error:  # out of memory, or a program that XLA does not compile
                self._drop(self.fast.name, error)
                self._afford()
        return oracle(self.program, inputs, self.samples)

    def over(
        self, draws: Iterator[Draw], counted: Callable[[], int]
    ) -> Iterator[tuple[Draw, dict[str, Array], list[Array]]]:
        """The draws with their inputs and the values on these.

        Where numpy's oracle is dear, the next draws are evaluated in threads meanwhile: no more of
        them than are needed even if all count (`counted`: how many did), so that they are the
        draws that would be made one by one. A faster oracle is asked draw by draw, and compared
        with numpy's on the first one that is in every operator's domain, meanwhile.

        Raises:
          OracleError: as when it is called, or the two oracles differ.
        """
        pool = ThreadPoolExecutor(self.threads, "prism_jax_oracle")
        begun: deque[tuple[Draw, dict[str, Array], Values]] = deque()
        first: tuple[list[Array], Values] | None = None
        try:
            while True:
                most = 1
                if self.dear and self.fast is None:
                    most = min(self.threads, self.needed - counted())
                while len(begun) < most or not begun:
                    draw = next(draws, None)
                    if draw is None:
                        break
                    inputs = draw.inputs(self.program)
                    values = functools.partial(self, inputs)
                    begun.append((draw, inputs, pool.submit(values).result if most > 1 else values))
                if not begun:
                    break
                draw, inputs, values = begun.popleft()
                if first is None and self._comparable(draw):
                    slow = pool.submit(oracle, self.program, inputs, self.samples)
                    first = values(), slow.result
                    yield draw, inputs, first[0]
                else:
                    yield draw, inputs, values()
            if first is not None and not agree(first[0], first[1]()):
                raise OracleError(f"{self.name} has other float64 values than numpy")
        finally:
            pool.shutdown(cancel_futures=True)

    def _comparable(self, draw: Draw) -> bool:
        """Whether a faster oracle is to be compared with numpy's on a draw of this kind."""
        return self.fast is not None and self.each <= COMPARED and draw.kind != "wild"


def agree(some: Sequence[Array], others: Sequence[Array]) -> bool:
    """Whether two evaluations in float64 are of one program: far more alike than any dtype narrower
    than float64 could tell, where both are finite. An integer may step where rounding decides.
    """
    for a, b in zip(some, others, strict=True):
        if not np.issubdtype(a.dtype, np.floating):
            if a.size and (a == b).mean() < 0.9:
                return False
            continue
        both = np.isfinite(a) & np.isfinite(b)
        with np.errstate(all="ignore"):
            top = np.max(np.abs(np.where(both, b, 0)), axis=1, keepdims=True, initial=0.0)
            if (both & (np.abs(a - b) > ALIKE * top)).any() or (~both & ~_same(a, b)).any():
                return False
    return True


def _same(a: Array, b: Array) -> Array:
    return (a == b) | (np.isnan(a) & np.isnan(b))
