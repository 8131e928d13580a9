"""Numbers modulo primes: the primes, powers, random functions, and what a float stands for.

>>> power(np.int64(3), np.arange(4), 7)
array([1, 3, 2, 6])
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import Parameter

Array: TypeAlias = Any
_SMALL = 4096
PAIR = np.dtype([("p", "i8"), ("q", "i8")])
ABSENT, NEGATIVE, POSITIVE, NAN, UNWRITTEN = -1, -2, -3, -4, -5
"""Codes in place of a residue: none on this side, -inf, +inf, NaN, memory nobody wrote."""

SMALL = (60083, 60251, 60383, 60719, 61331, 61703)
LARGE = (
    939524543, 949524623, 959525579, 969525779, 979526423, 989528279, 999528539, 1009528631,
)  # fmt: skip
"""Values of q: q and 2q + 1 are prime, q = 3 mod 4 (so -1 is not a square modulo either)."""


def log2_multiple(value: float) -> tuple[Fraction, int] | None:
    """(r, e) where the float is r (log 2)^e for e = 1 or -1 and a fraction r of small numbers.

    >>> log2_multiple(0.125 / math.log(2.0)), log2_multiple(0.7)
    ((Fraction(1, 8), -1), None)
    """
    for exponent in (1, -1):
        scale = math.log(2.0) ** exponent
        if value == float(np.float32(scale)):
            return Fraction(1), exponent
        ratio = Fraction(value / scale).limit_denominator(_SMALL)
        small = 0 < abs(ratio.numerator) <= _SMALL
        if small and abs(value / scale - ratio) < 1e-14 * abs(ratio):
            return ratio, exponent
    return None


def rational(value: float) -> Fraction:
    """The number a float stands for: a small fraction if one is within its rounding, else itself.

    >>> rational(1 / 3), rational(0.1 * 0.2)
    (Fraction(1, 3), Fraction(1, 50))
    """
    exact = Fraction(value)
    simple = exact.limit_denominator(10**5)
    return simple if abs(simple - exact) <= abs(exact) * Fraction(1, 2**50) else exact


def exponent_of(op: str, parameter: Parameter, order: int) -> int:
    """The integer power that an operator is, in a group of order 2 * `order`."""
    half = (order + 1) // 2  # twice it is 1 modulo the order of the squares
    if op == "integer_pow":
        assert isinstance(parameter, int)
        return parameter
    return {"sqrt": half, "rsqrt": -half, "abs": order + 1, "sign": order}[op]


def power(base: Array, exponent: Array, modulus: int) -> Array:
    """Elementwise base ** exponent, exponent >= 0."""
    base, exponent = np.asarray(base) % modulus, np.asarray(exponent)
    result = np.ones(np.broadcast_shapes(base.shape, exponent.shape), np.int64)
    while (exponent > 0).any():
        if exponent.ndim:
            result = np.where(exponent & 1, result * base % modulus, result)
        elif exponent & 1:
            result = result * base % modulus
        base = base * base % modulus
        exponent = exponent >> 1
    return result


@cache
def log_table(q: int) -> tuple[Array, Array]:
    """The powers of 4 (a generator of the squares) modulo 2q + 1, sorted, and their exponents."""
    values = power(np.int64(4), np.arange(q), 2 * q + 1)
    places = np.argsort(values)
    return values[places], places


def name_hash(text: str) -> int:
    """64 bits of a digest of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def mix(x: Array) -> Array:
    """A random-looking permutation of 64-bit numbers (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
