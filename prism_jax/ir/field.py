"""Programs over a pair of finite fields: a `Domain` for the interpreters (`ir/residues.py` is its
arithmetic).

Integers and booleans stay what they are; reals are pairs of residues. Two programs that are equal
over the reals by algebra and by the laws of the exponential are equal here, at every element where
both are defined.

>>> field = Field(seed=1)
>>> x = field.random((3,), np.random.default_rng(0))
>>> twice = field.pointwise("exp", None, [field.pointwise("add", None, [x, x])])
>>> once = field.pointwise("exp", None, [x])
>>> bool(field.same(twice, field.pointwise("mul", None, [once, once])).all())
True
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prism_jax.ir.nodes import REAL, Parameter
from prism_jax.ir.ops import MONOIDS, OPS
from prism_jax.ir.residues import (
    FIELD,
    NONE,
    PAIR,
    UNDEFINED,
    Array,
    Outside,
    P,
    Q,
    constant,
    embed,
    order_key,
    pair,
    power,
)

__all__ = ["Field", "Outside", "P", "Q"]


class Field:
    """A `Domain` over the pair of fields; the seed draws the roots of unity that exponentials are
    powers of.
    """

    def __init__(self, seed: int = 0) -> None:
        numbers = np.random.default_rng(seed)
        omega, omega2 = (int(power(int(numbers.integers(2, P - 1)), 2, P)) for _ in range(2))
        self.roots = (omega, omega2)

    def random(self, shape: tuple[int, ...], numbers: np.random.Generator) -> Array:
        """Uniformly random values."""
        return pair(numbers.integers(0, P, shape), numbers.integers(0, Q, shape))

    def same(self, a: Array, b: Array) -> Array:
        """Where both are defined and equal, residues mod q wherever both have them; or either is
        undefined.
        """
        if a.dtype != PAIR:
            return np.asarray(a == b)
        known = (a["q"] < 0) | (b["q"] < 0) | (a["q"] == b["q"])
        return (a["p"] == UNDEFINED) | (b["p"] == UNDEFINED) | ((a["p"] == b["p"]) & known)

    def defined(self, a: Array) -> Array:
        """Where a value is not UNDEFINED."""
        return a["p"] != UNDEFINED if a.dtype == PAIR else np.ones(a.shape, bool)

    # ---- the Domain interface ----

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor: pairs for reals."""
        if sort == REAL and array.dtype != PAIR:
            raise ValueError("real inputs of a field test are arrays of pairs")
        return np.asarray(array) if sort == REAL else np.asarray(array, np.dtype(sort))

    def const(self, value: bool | int | float, sort: str) -> Array:
        """A number."""
        if sort != REAL:
            return np.asarray(value, np.dtype(sort))
        return constant(float(value))

    def iota(self, values: Array, sort: str) -> Array:
        """Integers as values of the sort."""
        return embed(values) if sort == REAL else values.astype(np.dtype(sort))

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table; integers and booleans as in float64 evaluation."""
        if (
            any(a.dtype == PAIR for a in args)
            or OPS[op].sort((REAL,) * len(args), parameter) == REAL
        ):
            return np.asarray(OPS[op].field(self.roots, parameter, *args))
        return np.asarray(OPS[op].f64(parameter, *args))

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        if sort != REAL:
            return np.asarray(MONOIDS[monoid].combine(a, b))
        return FIELD[{"sum": "add", "prod": "mul"}.get(monoid, monoid)](self.roots, None, a, b)

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions; for argmax and argmin the first best place."""
        if sort != REAL:
            return np.asarray(MONOIDS[monoid].reduce(array, dims))
        moved = np.moveaxis(array, dims, range(len(dims)))
        moved = moved.reshape((-1, *moved.shape[len(dims) :]))
        if monoid in ("argmax", "argmin"):
            key = order_key(moved) * (1 if monoid == "argmax" else -1)
            bad = moved["p"] == UNDEFINED
            return np.argmax(np.where(bad, np.iinfo(np.int64).max, key), axis=0)
        total = moved[0]
        for term in moved[1:]:
            total = self.combine(monoid, sort, total, term)
        return total

    def identity(self, monoid: str, sort: str) -> Array:
        """The monoid's identity."""
        return self.const(MONOIDS[monoid].identity(sort), sort)

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product; special values make their row or column undefined."""
        if a.dtype != PAIR:
            return np.matmul(a, b)
        p = np.matmul(np.maximum(a["p"], 0), np.maximum(b["p"], 0)) % P
        q = np.matmul(np.maximum(a["q"], 0), np.maximum(b["q"], 0)) % Q
        p, q = (
            np.where((x < 0).any(-1)[..., :, None] | (y < 0).any(-2)[..., None, :], missing, made)
            for x, y, missing, made in ((a["p"], b["p"], UNDEFINED, p), (a["q"], b["q"], NONE, q))
        )
        return pair(p, q)

    def poison(self, shape: tuple[int, ...], sort: str) -> Array:
        """An array that nobody should read before it is written."""
        if sort == REAL:
            return np.broadcast_to(pair(np.asarray(UNDEFINED), np.asarray(NONE)), shape).copy()
        return np.zeros(shape, np.dtype(sort))
