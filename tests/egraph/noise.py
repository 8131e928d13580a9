"""How far a program's outputs move when every value in it is rounded a little differently.

Two equal programs round in other places. Where the difference decides something (the place of a
maximum among ties, a floor, a comparison) their outputs differ by more than rounding, and neither
is wrong. Such elements show here: the same program, evaluated again with noise on every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import Parameter
from prism_jax.ir.program import Program
from prism_jax.ir.values import Float64

Array: TypeAlias = Any
NOISE = 1e-9
RUNS = 8


class Noisy(Float64):
    """As `Float64`, with relative noise of `NOISE` on every real value as soon as it exists."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def load(self, array: Array, sort: str) -> Array:
        return self._off(super().load(array, sort))

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        return self._off(super().pointwise(op, parameter, args))

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        return self._off(super().reduce(monoid, sort, array, dims))

    def matmul(self, a: Array, b: Array) -> Array:
        return self._off(super().matmul(a, b))

    def _off(self, value: Array) -> Array:
        value = np.asarray(value)
        if not np.issubdtype(value.dtype, np.floating):
            return value
        with np.errstate(all="ignore"):
            return value * (1 + NOISE * self.rng.standard_normal(value.shape))


def sensitivity(program: Program, inputs: dict[str, Array]) -> list[Array]:
    """Per output element: the largest move in `RUNS` noisy runs; infinite where it is no number."""
    want = evaluate(program, inputs)
    moved = [np.zeros(np.shape(w)) for w in want]
    for seed in range(RUNS):
        noisy = evaluate(program, inputs, domain=Noisy(seed))
        for total, a, b in zip(moved, want, noisy, strict=True):
            with np.errstate(all="ignore"):
                step = np.abs(np.asarray(a, float) - np.asarray(b, float))
            np.maximum(total, np.where(np.isfinite(step), step, np.inf), out=total)
    return moved
