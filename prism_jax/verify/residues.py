"""Reals as pairs of residues: the meaning of programs that the finite-field test computes with.

A real is a pair (x mod p, x mod q) with p = 2q + 1, both prime, plus codes for -inf, +inf and NaN.
The squares modulo p are a group of order q, so

* exp(x) = w^(x mod q) takes the additive group modulo q to the squares modulo p. Its result has no
  residue modulo q, so that an exponential of an exponential is outside (once per path, as in
  Mirage);
* log takes squares back to residues modulo q (by a table, so q is small where log occurs);
* squares play the part of positive numbers: roots and fractional powers are homomorphisms, exact on
  them. |x| is x times its quadratic character, and sqrt(x^2) = |x| holds for all x;
* max, min and comparisons use the order of representatives: a total order, hence a true semilattice
  (not a monotone one: max(c x) = c max(x) does not hold, and is reported as outside);
* functions without algebra here (erf, sin, a rounding cast, ...) are random functions, the same for
  equal arguments.

Integers and booleans are what they are. A value that does not exist (1/0, the root of a non-square
in a strict draw) raises `Redraw`.

>>> from prism_jax.verify.modular import SMALL
>>> field = Residues(SMALL[0], seed=1)
>>> third = field.pointwise("div", None, [field.const(1, "real"), field.const(3, "real")])
>>> field.pointwise("mul", None, [third, field.const(3, "real")])["p"]
array(1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import FLOATS, REAL, Parameter
from prism_jax.ir.ops import OPS
from prism_jax.ir.values import FLOAT64
from prism_jax.verify.arithmetic import Arithmetic, is_real
from prism_jax.verify.modular import (
    ABSENT,
    NEGATIVE,
    POSITIVE,
    UNWRITTEN,
    mix,
)

Array: TypeAlias = Any


class Residues(Arithmetic):
    """The domain (`ir.values.Domain`) of one draw."""

    # ---- the domain's protocol

    def draw(self, shape: tuple[int, ...]) -> Array:
        """Random reals."""
        return self.pair(self.rng.integers(0, self.p, shape), self.rng.integers(0, self.q, shape))

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor, as values of the sort."""
        return np.asarray(array) if sort == REAL else FLOAT64.load(array, sort)

    def iota(self, values: Array, sort: str) -> Array:
        """Integers, as values of the sort."""
        if sort != REAL:
            return FLOAT64.iota(values, sort)
        return self.pair(np.asarray(values) % self.p, np.asarray(values) % self.q)

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table."""
        real = [is_real(a) for a in args]
        if op == "where":
            return np.where(args[0], args[1], args[2])
        if not any(real):
            if op == "cast" and str(parameter) in FLOATS:
                return self.pair(*(_modulo(args[0], m) for m in (self.p, self.q)))
            return FLOAT64.pointwise(op, parameter, args)
        if op in _COMPARE:
            a, b = (self.key(x) for x in args)
            self.meet("a comparison", mix(mix(a.view(np.uint64)) ^ b.view(np.uint64)))
            return _COMPARE[op](a, b)
        if op == "is_finite":
            return args[0]["p"] >= ABSENT
        return self.arithmetic(op, parameter, args)

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions."""
        if not is_real(array):
            return FLOAT64.reduce(monoid, sort, array, dims)
        rest = [n for n in range(array.ndim) if n not in dims]
        flat = array.transpose([*rest, *dims]).reshape([array.shape[n] for n in rest] + [-1])
        if monoid in ("argmax", "argmin"):
            key = self.key(flat)
            self.order("an argmax", key)
            return np.argmax(key if monoid == "argmax" else -key, axis=-1)
        if monoid in ("max", "min") and flat.shape[-1]:
            return self.extreme_of(monoid, flat)
        if monoid == "sum" and not (flat["p"] < ABSENT).any():
            lost = {side: (flat[side] == ABSENT).any(-1) for side in ("p", "q")}
            p = np.where(lost["p"], ABSENT, flat["p"].sum(-1) % self.p)
            return self.pair(p, np.where(lost["q"], ABSENT, flat["q"].sum(-1) % self.q))
        total = np.broadcast_to(self.identity(monoid, sort), flat.shape[:-1])
        for n in range(flat.shape[-1]):
            total = self.combine(monoid, sort, total, flat[..., n])
        return total

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        if not is_real(a):
            return FLOAT64.combine(monoid, sort, a, b)
        return self.arithmetic({"sum": "add", "prod": "mul"}.get(monoid, monoid), None, (a, b))

    def identity(self, monoid: str, sort: str) -> Array:
        """The monoid's identity."""
        if sort != REAL:
            return FLOAT64.identity(monoid, sort)
        codes = {"max": NEGATIVE, "min": POSITIVE, "argmax": NEGATIVE, "argmin": POSITIVE}
        if monoid in codes:
            return self.code(codes[monoid])
        return self.pair(np.int64(monoid == "prod"), np.int64(monoid == "prod"))

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product."""
        if not is_real(a):
            return FLOAT64.matmul(a, b)
        product = self.arithmetic("mul", None, (a[..., :, :, None], b[..., None, :, :]))
        return self.reduce("sum", REAL, product, (product.ndim - 2,))

    def poison(self, shape: tuple[int, ...], sort: str) -> Array:
        """An array that nobody should read before it is written."""
        if sort != REAL:
            return FLOAT64.poison(shape, sort)
        return np.broadcast_to(self.code(UNWRITTEN), shape).copy()


def _modulo(values: Array, modulus: int) -> Array:
    values = np.asarray(values)
    if values.dtype == np.uint64:  # those above 2^63 have no int64
        return (values % np.uint64(modulus)).astype(np.int64)
    return values.astype(np.int64) % modulus


_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
assert set(_COMPARE) <= set(OPS)
