"""The accuracy contract with rounding rolled again: a row that one unlucky rounding decides.

In: rows that break the contract on inputs as given, and the same rows on inputs one rounding away.
Out: their share of the allowance with both errors a root mean square over all of these inputs.

A row whose error hangs on one rounding is sometimes hit exactly by the reference and missed by an
equally good candidate; one in a few hundred breaks "twice the error" between two copies of one
algorithm. Neighbouring inputs have the same answer for all purposes and other roundings: there luck
changes sides, and a loss of accuracy stays. Nothing is modelled, both sides are run. (`luck.py`
asks the same question of a program without running it, where a check has many draws to make.)

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

import ml_dtypes
import numpy as np

from prism_jax.ir.nodes import FLOATS
from prism_jax.ir.ops import numpy_dtype
from prism_jax.verify.measure import Rows, over
from prism_jax.verify.modular import mix

Array: TypeAlias = Any
TIMES = 8
"""Inputs besides the given ones: a root mean square over nine differs by a quarter from that of all
inputs, and the contract leaves a factor of two."""


def moved(array: Array, seed: int) -> Array:
    """The array with about half of its floating elements one unit of rounding nearer to zero.

    Equal elements move alike, so that constant rows and repeated values stay what they are; zeros,
    infinities and NaN stay, and so does the domain of every function that is defined between an
    element and zero. Other dtypes come back as they are.
    """
    array = np.asarray(array)
    if array.dtype.name not in FLOATS:
        return array
    wide = np.ascontiguousarray(array, np.float64)
    salt = mix(np.uint64(seed))
    down = (mix(wide.view(np.uint64).reshape(wide.shape) ^ salt) & np.uint64(1)).astype(bool)
    eps = float(ml_dtypes.finfo(numpy_dtype(array.dtype.name)).eps)
    with np.errstate(all="ignore"):
        return np.where(down, wide * (1 - 0.75 * eps), wide).astype(array.dtype)


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
