"""The program in the user's own precision, at sampled elements: the reference where jit's version
does not fit in memory.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Store, Tensor, at
>>> i = Axis("i", 1)
>>> x, y = Tensor("x", (1,), "float32"), Tensor("y", (1,), "float32")
>>> third = Pointwise("div", (Load(x, (at(i),)), Load(x, (at(i),))))
>>> program = Program("one", (x,), (Store(y, (at(i),), third),))
>>> evaluate_rounded(program, {"x": np.full(1, 3, np.float32)})[0].dtype
dtype('float32')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import REAL, Parameter
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.ir.values import Float64
from prism_jax.verify.sample import Sample, oracle

Array: TypeAlias = Any


class Rounded(Float64):
    """As `Float64`, but every real value is rounded to the compute dtype as soon as it exists."""

    def __init__(self, compute: str) -> None:
        self.dtype = numpy_dtype(compute)

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor, as values of the sort."""
        return np.asarray(array, self.dtype if sort == REAL else np.dtype(sort))

    def const(self, value: bool | int | float, sort: str) -> Array:
        """A number, as a value."""
        return self._round(super().const(value, sort))

    def iota(self, values: Array, sort: str) -> Array:
        """Integers, as values of the sort."""
        return self._round(super().iota(values, sort))

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table."""
        return self._round(super().pointwise(op, parameter, args))

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions."""
        return self._round(super().reduce(monoid, sort, array, dims))

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        return self._round(super().combine(monoid, sort, a, b))

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product."""
        return self._round(super().matmul(a, b))

    def poison(self, shape: tuple[int, ...], sort: str) -> Array:
        """An array that nobody should read before it is written."""
        return self._round(super().poison(shape, sort))

    def _round(self, value: Array) -> Array:
        value = np.asarray(value)
        with np.errstate(all="ignore"):
            return value.astype(self.dtype) if np.issubdtype(value.dtype, np.floating) else value


def evaluate_rounded(
    program: Program, inputs: Mapping[str, Array], samples: Sequence[Sample] | None = None
) -> list[Array]:
    """Whole outputs, or their samples as (rows, columns), in the program's compute dtype and then
    rounded to their own.
    """
    domain = Rounded(program.compute)
    if samples is None:
        values = list(evaluate(program, inputs, domain=domain))
    else:
        values = oracle(program, inputs, samples, domain)
    with np.errstate(all="ignore"):
        return [
            np.asarray(v).astype(numpy_dtype(s.tensor.dtype))
            for v, s in zip(values, program.outputs, strict=True)
        ]
