"""Arrays to time with: what they hold must not make a kernel faster than the user's data would.

In: tensors whose sizes are numbers. Out: arrays of normal floats, small non-negative integers (they
may be indices) and booleans; the n-th tensor of one shape and dtype always has the same values.
Zeros, and rows that repeat each other, cost less power and run faster: there are none. Imports no
jax until it has to.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from prism_jax.ir.nodes import Tensor

if TYPE_CHECKING:
    import jax

#: Numbers that are drawn; larger arrays repeat them. A prime, so that no row repeats another.
DRAWN = 1_048_573
#: Deviation of floats: products of a few of them stay within float16.
DEVIATION = 0.25


Kind = tuple[tuple[int, ...], str, int]
"""Shape, dtype, and which one it is of those alike: tensors of one kind have the same values."""


def random_inputs(tensors: Sequence[Tensor], seed: int = 0) -> list[jax.Array]:
    """One array on jax's default device for each of `tensors`."""
    import jax

    return [jax.device_put(values) for values in random_values(tensors, seed)]


def random_values(tensors: Sequence[Tensor], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """One array for each of `tensors`, on the host.

    >>> x, i = random_values([Tensor("x", (2, 3), "bfloat16"), Tensor("i", (4,), "int32")])
    >>> x.shape, str(x.dtype), sorted({*i.tolist()} | {0, 1})
    ((2, 3), 'bfloat16', [0, 1])
    """
    return [values(kind, seed) for kind in kinds(tensors)]


def kinds(tensors: Sequence[Tensor]) -> list[Kind]:
    """What the values of each of `tensors` depend on.

    >>> kinds([Tensor("x", (2,), "int8"), Tensor("y", (2,), "int8"), Tensor("z", (), "int8")])
    [((2,), 'int8', 0), ((2,), 'int8', 1), ((), 'int8', 0)]
    """
    alike: Counter[tuple[tuple[int, ...], str]] = Counter()
    found: list[Kind] = []
    for tensor in tensors:
        shape = tuple(int(size) for size in tensor.shape)
        found.append((shape, tensor.dtype, alike[shape, tensor.dtype]))
        alike[shape, tensor.dtype] += 1
    return found


def values(kind: Kind, seed: int = 0) -> np.ndarray[Any, Any]:
    """The values of one kind, drawn anew."""
    shape, name, number = kind
    rng = np.random.default_rng((seed, number, zlib.crc32(name.encode()), *shape))
    count = min(DRAWN, int(np.prod(shape, dtype=np.int64)))
    if name.startswith(("float", "bfloat")):
        drawn = DEVIATION * rng.standard_normal(count, np.float32)
    else:
        drawn = rng.integers(0, 2, count)
    # numpy knows the narrow floats by ml_dtypes's types, not by name.
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    return np.resize(drawn.astype(dtype), shape)
