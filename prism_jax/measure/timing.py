"""Paired host timing: two callables side by side, medians, and an interval for their ratio.

In: two functions of no arguments that return jax values. Out: `Paired`.

Invariant: a sample of one is always taken next to a sample of the other, in alternating order, so a
machine that slows down or speeds up moves both; the interval is a bootstrap over those pairs with a
fixed seed, so equal samples give equal numbers.

>>> fast, slow = [1.0, 1.1, 0.9, 1.0], [2.0, 2.2, 1.8, 2.0]
>>> paired = summarise(slow, fast)
>>> round(paired.ratio, 2), paired.low > 1.5
(2.0, True)
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Paired:
    """Seconds per call of a reference and a candidate, and how many times faster the candidate is.

    Attributes:
      reference_s, candidate_s: medians.
      reference_spread, candidate_spread: half the distance between the quartiles over the median.
      ratio: median of reference / candidate over the pairs; above 1 the candidate is faster.
      low, high: 95 % bootstrap interval of that median.
      pairs: how many.
    """

    reference_s: float
    candidate_s: float
    reference_spread: float
    candidate_spread: float
    ratio: float
    low: float
    high: float
    pairs: int


def compare(
    reference: Callable[[], Any],
    candidate: Callable[[], Any],
    *,
    seconds: float = 2.0,
    pairs: tuple[int, int] = (7, 200),
) -> Paired:
    """Times both, alternating, for about `seconds` and a number of pairs within `pairs`.

    A sample is as many calls as fill a millisecond, waited for together; both are warmed up first.
    """
    sides = (reference, candidate)
    repeats = 1
    for run in (*sides, *sides):
        cost = _sample(run, 1)
        repeats = max(repeats, min(1000, int(1e-3 / max(cost, 1e-7))))
    samples: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    least, most = pairs
    while len(samples[0]) < most:
        # The order flips each time, so that neither always runs on the other's warm caches.
        for side in (0, 1) if len(samples[0]) % 2 else (1, 0):
            samples[side].append(_sample(sides[side], repeats))
        if len(samples[0]) >= least and time.perf_counter() - start > seconds:
            break
    return summarise(*samples)


def summarise(reference: Sequence[float], candidate: Sequence[float]) -> Paired:
    """The statistics of samples that were taken in pairs."""
    first, second = np.asarray(reference), np.asarray(candidate)
    ratios = first / second
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(ratios), (1000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return Paired(
        reference_s=float(np.median(first)),
        candidate_s=float(np.median(second)),
        reference_spread=_spread(first),
        candidate_spread=_spread(second),
        ratio=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        pairs=len(ratios),
    )


def _sample(run: Callable[[], Any], repeats: int) -> float:
    """Seconds per call of `repeats` calls, waiting once for all of them."""
    start = time.perf_counter()
    results = [run() for _ in range(repeats)]
    jax.block_until_ready(results)
    return (time.perf_counter() - start) / repeats


def _spread(samples: np.ndarray[Any, np.dtype[Any]]) -> float:
    quarter, middle, three_quarters = np.percentile(samples, [25, 50, 75])
    return float((three_quarters - quarter) / 2 / middle)
