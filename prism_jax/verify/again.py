"""The accuracy contract with rounding rolled again: a row that one unlucky rounding decides.

In: rows that break the contract on inputs as given, and the same rows on inputs a little smaller.
Out: their share of the allowance with both errors a root mean square over all of these inputs.

A row whose error hangs on one rounding is sometimes hit exactly by the reference and missed by an
equally good candidate; between two copies of one algorithm, one row in a few hundred breaks "twice
the error". Every input times a number near 1 is the same problem for all purposes, with other
roundings throughout: there luck changes sides, and a loss of accuracy stays. Moves by single units
of rounding do less: errors of long sums follow them slowly, and rows seem biased that are not.
Nothing is modelled, both sides are run. (`luck.py` asks the same question of a program without
running it, where a check has many draws to make.)

>>> from prism_jax.verify.measure import rows
>>> o, far = np.zeros((1, 2)), np.full((1, 2), 1e-3)
>>> lucky = rows(o, o, far, "float32", 2.0)  # the reference is exact, the candidate is not
>>> shares(lucky, [rows(o, far, far, "float32", 2.0)] * 3).round(2).tolist()
[[0.58, 0.58]]
>>> bool(shares(lucky, [lucky] * 3).max() > 1)
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import FLOATS
from prism_jax.verify.measure import Rows, over

Array: TypeAlias = Any
NEARER = (2.0**-7, 2.0**-5)
TIMES = 8
"""Inputs besides the given ones: a root mean square over nine differs by a quarter from that of all
inputs, and the contract leaves a factor of two."""


def moved(arrays: Sequence[Array], seed: int) -> list[Array]:
    """The arrays, each times a number of its own between 0.97 and 0.99, in their own dtypes.

    What makes a row easy or hard stays: equal elements stay equal, zeros, infinities and NaN stay,
    relative differences stay up to rounding, and no element leaves the domain of a function that is
    defined between it and zero. Arrays that do not hold floating numbers come back as they are.
    """
    rng = np.random.default_rng([seed, 41])
    return [_scaled(np.asarray(array), 1 - rng.uniform(*NEARER)) for array in arrays]


def _scaled(array: Array, factor: float) -> Array:
    if array.dtype.name not in FLOATS:
        return array
    with np.errstate(all="ignore"):
        return (array.astype(np.float64) * factor).astype(array.dtype)


def shares(first: Rows, again: Sequence[Rows]) -> Array:
    """(rows, 2): the share of the allowance that each row uses over all the inputs together.

    Args:
      first: errors on the inputs as given.
      again: errors of the same rows on inputs that `moved` gave.
    """
    everything = (first, *again)
    candidate, reference = (
        np.sqrt(np.mean([getattr(found, side) ** 2 for found in everything], axis=0))
        for side in ("candidate", "reference")
    )
    floor = np.max([found.floor for found in everything], axis=0)
    return over(candidate, first.accuracy * reference + floor[:, None])
