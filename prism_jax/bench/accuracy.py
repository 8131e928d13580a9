"""Errors against a float64 oracle, and the accuracy contract that a rewrite must keep.

In: arrays as the user gets them, and the oracle's. Out: `Errors`, and a verdict.

A row is what is left when all axes but the last are fixed. For each row, `err` is both the largest
absolute difference and its root mean square. The contract, for the candidate c, the user's own
program r and the oracle o:

    err(c, o) <= 2 err(r, o) + floor,  floor = 4 ulp of the output's dtype at the row's largest |o|

Infinities and NaN stand in c where they stand in r, except where r overflowed and o is finite.

>>> import numpy as np
>>> measure([np.float32([1.0, 2.0])], [np.float64([1.0, 4.0])]).worst
0.5
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: How much worse than the user's own program a candidate may be, and how many units in the last
#: place of the output are noise.
FACTOR, FLOOR_ULPS = 2.0, 4.0

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
        largest, mean_square, scale = _rows(np.asarray(value, np.float64), np.asarray(exact))
        safe = np.where(scale > 0, scale, 1.0)
        worst = max(worst, float(np.max(largest / safe)))
        rms = max(rms, float(np.max(mean_square / safe)))
    return Errors(worst, rms, differing)


def keeps_contract(
    candidate: Sequence[Any], reference: Sequence[Any], oracle: Sequence[Any]
) -> bool:
    """Whether the candidate's outputs satisfy the contract beside the user's own program's.

    Integer outputs may differ from the reference's only where the reference also differs from the
    oracle, or in under one element of a thousand (ties within rounding).
    """
    return all(
        _keeps(np.asarray(c), np.asarray(r), np.asarray(o))
        for c, r, o in zip(candidate, reference, oracle, strict=True)
    )


def _keeps(candidate: Array, reference: Array, exact: Array) -> bool:
    if candidate.shape != reference.shape or candidate.dtype != reference.dtype:
        return False
    if candidate.size == 0:
        return True
    if not is_float(candidate):
        wrong = (candidate != exact) & (reference == exact)
        return float(np.mean(wrong)) < 1e-3
    wide_c, wide_r = candidate.astype(np.float64), reference.astype(np.float64)
    overflowed = ~np.isfinite(wide_r) & np.isfinite(exact)
    same_special = np.where(
        np.isfinite(wide_r), np.isfinite(wide_c), (wide_c == wide_r) | np.isnan(wide_r)
    )
    if not np.all(same_special | overflowed):
        return False
    # Where the reference is not finite there is nothing to compare with.
    usable = np.isfinite(wide_r) & np.isfinite(exact) & np.isfinite(wide_c)
    wide_c, wide_r, exact = (np.where(usable, array, 0.0) for array in (wide_c, wide_r, exact))
    worst_c, rms_c, scale = _rows(wide_c, exact)
    worst_r, rms_r, _ = _rows(wide_r, exact)
    floor = FLOOR_ULPS * float(jnp.finfo(candidate.dtype).eps) * scale
    return bool(
        np.all(worst_c <= FACTOR * worst_r + floor) and np.all(rms_c <= FACTOR * rms_r + floor)
    )


def _rows(value: Array, exact: Array) -> tuple[Array, Array, Array]:
    """Per row: largest difference, root mean square difference, largest |exact|."""
    value, exact = np.atleast_1d(value), np.atleast_1d(exact)
    with np.errstate(invalid="ignore"):
        difference = np.abs(value - exact)
    # Equal infinities differ by nothing; a NaN that the oracle has too is right.
    same = (value == exact) | (np.isnan(value) & np.isnan(exact))
    difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    scale = np.max(np.where(np.isfinite(exact), np.abs(exact), 0.0), axis=-1)
    return np.max(difference, axis=-1), np.sqrt(np.mean(difference**2, axis=-1)), scale
