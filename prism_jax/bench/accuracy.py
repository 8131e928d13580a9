"""Errors against a float64 oracle, and the accuracy contract that a rewrite must keep.

In: arrays as the user gets them, and the oracle's. Out: `Errors`, and a `Verdict`.

A row is what is left when all axes but the last are fixed. For each row, `err` is both the largest
absolute difference and its root mean square. The contract, for the candidate c, the user's own
program r and the oracle o, is that of `verify`:

    err(c, o) <= 2 err(r, o) + floor,  floor = 4 ulp of the output's dtype at the row's largest |o|

Infinities and NaN stand in c where they stand in r, except where r overflowed and o is finite. A
row that exceeds it is judged by all of nine inputs a percent or two apart, where both errors are
root mean squares (`verify.again`): between equally accurate programs, luck alone breaks the rule
in one row of a few hundred.

>>> import numpy as np
>>> measure([np.float32([1.0, 2.0])], [np.float64([1.0, 4.0])]).worst
0.5
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax.verify import again
from prism_jax.verify.measure import ULPS, Rows, rows

#: How much worse than the user's own program a candidate may be, and how many units in the last
#: place of the output are noise.
FACTOR, FLOOR_ULPS = 2.0, float(ULPS)
#: The share of an integer output that may differ where the user's own program is right: ties.
TIES = 1e-3

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors relative to the largest |oracle| of each row; the worst row of all outputs.

    Attributes:
      worst: largest absolute difference.
      rms: largest root mean square difference of a row.
      differing: share of differing elements, over integer and boolean outputs only.
    """

    worst: float
    rms: float
    differing: float = 0.0


class Outputs(NamedTuple):
    """What one draw of arguments gives: leaves of the candidate, the user's program, the oracle."""

    candidate: Sequence[Any]
    reference: Sequence[Any]
    exact: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the contract is kept.

    Attributes:
      kept: it is.
      share: the largest share of the allowance that a row uses; above 1 it is broken. None
        where shape, dtype or the place of a NaN is wrong, and in records older than this field.
      again: how many rows exceeded it on the inputs as given and were judged by nine.
    """

    kept: bool
    share: float | None
    again: int = 0

    @staticmethod
    def worst(verdicts: Sequence[Verdict]) -> Verdict:
        """Of several draws together."""
        return Verdict(
            all(v.kept for v in verdicts),
            max((v.share for v in verdicts if v.share is not None), default=None),
            sum(v.again for v in verdicts),
        )


BROKEN = Verdict(False, None)


def is_float(value: Any) -> bool:
    """Whether an array or scalar holds floating numbers (bfloat16 and its like included)."""
    return bool(jnp.issubdtype(jnp.result_type(value), jnp.floating))


def leaves(tree: Any) -> list[Array]:
    """The leaves of any tree of arrays as numpy arrays."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def measure(values: Sequence[Any], oracle: Sequence[Any]) -> Errors:
    """Errors of all outputs together. Raises ValueError where the shapes differ."""
    worst = rms = differing = 0.0
    for value, exact in zip(values, oracle, strict=True):
        if np.shape(value) != np.shape(exact):
            raise ValueError(f"shapes {np.shape(value)} and {np.shape(exact)} differ")
        if np.size(value) == 0:
            continue
        if not is_float(value):
            differing = max(differing, float(np.mean(np.asarray(value) != np.asarray(exact))))
            continue
        largest, mean_square, scale = _relative(np.asarray(value, np.float64), np.asarray(exact))
        safe = np.where(scale > 0, scale, 1.0)
        worst = max(worst, float(np.max(largest / safe)))
        rms = max(rms, float(np.max(mean_square / safe)))
    return Errors(worst, rms, differing)


def judge(given: Outputs, rolled: Callable[[int], Outputs]) -> Verdict:
    """Whether the candidate's outputs satisfy the contract beside the user's own program's.

    Integer outputs may differ from the reference's only where the reference also differs from the
    oracle, or in under one element of a thousand (ties within rounding).

    Args:
      given: on the arguments as they are.
      rolled: with a number from 1 to `again.TIMES`: on arguments that `again.moved` gave; called
        only where a row exceeds its allowance.
    """
    first = _errors(given)
    if first is None:
        return BROKEN
    share = max((float(found.ratio.max(initial=0.0)) for found in first), default=0.0)
    if share <= 1:
        return Verdict(True, share)
    failing = [(found.ratio > 1).any(1) for found in first]
    count = sum(int(rows_of_one.sum()) for rows_of_one in failing)
    others: list[list[Rows]] = []
    for number in range(1, again.TIMES + 1):
        other = _errors(rolled(number))
        if other is None:
            return dataclasses.replace(BROKEN, again=count)
        others.append(other)
    used = [
        np.where(over[:, None], again.shares(found, same), found.ratio)
        for over, found, same in zip(failing, first, zip(*others, strict=True), strict=True)
    ]
    share = max(float(one.max(initial=0.0)) for one in used)
    return Verdict(share <= 1, share, count)


def _errors(outputs: Outputs) -> list[Rows] | None:
    """The errors of every floating output; None where another rule of the contract is broken."""
    found: list[Rows] = []
    for c, r, o in zip(*(map(np.asarray, side) for side in outputs), strict=True):
        if c.shape != r.shape or c.dtype != r.dtype:
            return None
        if not c.size:
            continue
        if not is_float(c):
            if float(np.mean((c != o) & (r == o))) >= TIES:
                return None
            continue
        width = c.shape[-1] if c.ndim else 1
        o, r, wide = (np.asarray(x, np.float64).reshape(-1, width) for x in (o, r, c))
        found.append(rows(o, r, wide, c.dtype.name, FACTOR))
        if found[-1].misplaced.any():
            return None
    return found


def _relative(value: Array, exact: Array) -> tuple[Array, Array, Array]:
    """Per row: largest difference, root mean square difference, largest |exact|."""
    value, exact = np.atleast_1d(value), np.atleast_1d(exact)
    with np.errstate(invalid="ignore"):
        difference = np.abs(value - exact)
    # Equal infinities differ by nothing; a NaN that the oracle has too is right.
    same = (value == exact) | (np.isnan(value) & np.isnan(exact))
    difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    scale = np.max(np.where(np.isfinite(exact), np.abs(exact), 0.0), axis=-1)
    return np.max(difference, axis=-1), np.sqrt(np.mean(difference**2, axis=-1)), scale
