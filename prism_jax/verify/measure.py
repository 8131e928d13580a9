"""Row-wise errors, floors and the placement of NaN and infinities (design, section 8).

In: float64 arrays of shape (rows, samples) holding the oracle o, the reference r and the candidate
  c, and the output's dtype.
Out: per row, by how much c uses up what the contract allows it: `err(c, o) / (accuracy * err(r, o)
  + floor)`.

The floor is 4 ulp of the output dtype at the row's largest |o|. Why 4: the last rounding costs half
an ulp whatever the algorithm; a correctly rounded reference leaves err(r, o) at half an ulp, and an
honest candidate may round one or two intermediate values of the output's size (an epilogue's
multiply, a rescaled accumulator) in other places. Measured against each dtype in the tests: in
float16 (ulp 2^-10) and bfloat16 (2^-7) the last rounding dominates and 4 ulp are 0.4 % and 3 % of
the row's largest value; in float32 (2^-23) and float64 (2^-52) long sums dominate, err(r, o)
carries the contract and the floor only covers rows that the reference happens to hit exactly. A
float64 program has an oracle no better than itself, so that there err(r, o) is how far two orders
of the same sums are apart, which is what the candidate may be off by, too. XLA
flushes subnormal float32 and bfloat16 results to zero: what stands next to zero there is the
smallest normal number, which therefore is the least an ulp can be, and two values that are flushed
at different steps may be a few of them apart. float16 and float64 keep their subnormal numbers.

>>> o = np.array([[1.0, 2.0]])
>>> worst = rows(o, o, o + [[0.0, 1e-6]], "float32", accuracy=2.0).ratio.max()
>>> round(float(worst), 2)  # 1e-6 of the 4 * 2^-22 allowed at 2.0
1.05
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from prism_jax.ir.ops import numpy_dtype

Array: TypeAlias = Any
ULPS = 4
_FLUSHED = ("float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Rows:
    """Errors of every row: arrays (rows, 2), the two columns being maximum and root mean square."""

    reference: Array
    candidate: Array
    floor: Array
    """(rows,): absolute, in the output's units."""
    accuracy: float
    misplaced: Array
    """(rows, samples): where a NaN or an infinity stands in one of the two only."""

    @property
    def allowed(self) -> Array:
        """What the contract grants each row and statistic."""
        return self.accuracy * self.reference + self.floor[:, None]

    @property
    def ratio(self) -> Array:
        """(rows, 2): above 1 is a failure."""
        return over(self.candidate, self.allowed)


def floor(o: Array, dtype: str) -> Array:
    """4 ulp of `dtype` at each row's largest finite |o|; rows are the first dimension."""
    info = ml_dtypes.finfo(numpy_dtype(dtype))
    top = np.max(np.abs(np.where(np.isfinite(o), o, 0)), axis=1, initial=0.0)
    top = np.minimum(top, float(info.max))
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.maximum(top, float(info.smallest_normal))))
    ulp = np.exp2(exponent) * float(info.eps)
    least = float(info.smallest_normal) if dtype in _FLUSHED else 0.0
    return ULPS * np.maximum(ulp, least)


def rows(o: Array, r: Array, c: Array, dtype: str, accuracy: float) -> Rows:
    """The errors of the reference and of the candidate, row by row."""
    bad = misplaced(o, r, c, dtype)
    use = np.isfinite(o) & np.isfinite(r) & np.isfinite(c)
    return Rows(_errors(r, o, use), _errors(c, o, use), floor(o, dtype), accuracy, bad)


def misplaced(o: Array, r: Array, c: Array, dtype: str) -> Array:
    """Where the candidate's NaN or infinity breaks the rule.

    NaN and infinities stand where the reference has them, except where the reference overflowed and
    the oracle is finite. A candidate may also round to infinity what is within the floor of the
    largest number.
    """
    top = float(ml_dtypes.finfo(numpy_dtype(dtype)).max)
    overflowed = ~np.isfinite(r) & np.isfinite(o)
    same = np.where(np.isfinite(r), np.isfinite(c), (r == c) | (np.isnan(r) & np.isnan(c)))
    eps = float(ml_dtypes.finfo(numpy_dtype(dtype)).eps)
    at_the_edge = np.isinf(c) & (np.abs(o) >= top * (1 - ULPS * eps)) & (np.sign(c) == np.sign(o))
    return ~(same | overflowed | at_the_edge)


def _errors(x: Array, o: Array, use: Array) -> Array:
    with np.errstate(all="ignore"):
        error = np.where(use, np.abs(x - o), 0.0)
        count = np.maximum(use.sum(1), 1)
        scale = np.maximum(error.max(1, initial=0.0), 1e-300)
        rms = scale * np.sqrt(((error / scale[:, None]) ** 2).sum(1) / count)
    return np.stack([error.max(1, initial=0.0), rms], 1)


def over(error: Array, allowed: Array) -> Array:
    """The share of the allowance that an error uses; infinite where nothing is allowed."""
    some = np.maximum(allowed, 1e-320)
    with np.errstate(all="ignore"):
        return np.where(allowed > 0, error / some, np.where(error > 0, np.inf, 0.0))
