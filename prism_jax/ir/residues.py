"""Arithmetic on pairs of residues: the `field` column of the operator table.

A real is a pair (v_p, v_q) modulo two primes, p = 2q + 1. Rational operations act on both, and
exp(v) = omega^v_q mod p, where omega has order q, so that exp(a + b) = exp(a) exp(b) holds exactly;
the result has no residue mod q left, so there is one exponential on a path (Mirage, section 5).
Square and cube roots are the multiplicative maps that exist for this p. Comparisons, max and min
use one fixed total order of representatives: a true semilattice, but blind to monotonicity. A value
may also be -inf, +inf or UNDEFINED (a division by zero, a root of a non-residue, inf - inf), which
spreads.

An operator with no meaning in the field raises `Outside` with the reason.

>>> half, two = constant(0.5), constant(2.0)
>>> FIELD["mul"]((1, 1), None, half, two)["p"].item()
1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import Parameter

Array: TypeAlias = Any

Q = 1048571
"""A prime below 2^20, 3 modulo 4, such that 2 Q + 1 is prime and 3 divides neither Q - 1 nor 2
Q."""
P = 2 * Q + 1

PAIR = np.dtype([("p", np.int64), ("q", np.int64)])
NONE = -1
"""The q of a value that has no residue mod q: an exponential, and what is made of one."""
BOTTOM, TOP, UNDEFINED = -3, -2, -1
"""The p of -inf, +inf and of what has no value."""


class Outside(Exception):
    """The program leaves the fragment that finite fields can test; says why."""


def pair(p: Array, q: Array) -> Array:
    """The pairs of these residues; a special value has no q."""
    p, q = np.broadcast_arrays(p, q)
    made = np.empty(p.shape, PAIR)
    made["p"], made["q"] = p, np.where(p < 0, NONE, q)
    return made


def power(base: Array, exponent: Array | int, modulus: int) -> Array:
    """base^exponent mod modulus, elementwise, for exponents >= 0."""
    square, left = np.broadcast_arrays(np.asarray(base, np.int64), np.asarray(exponent, np.int64))
    result = np.ones(square.shape, np.int64)
    while np.any(left):
        result = np.where(left & 1, result * square % modulus, result)
        square, left = square * square % modulus, left >> 1
    return result


def order_key(x: Array) -> Array:
    """The total order: -inf, then by residues, then +inf."""
    finite = x["p"] * (Q + 1) + x["q"] + 1
    return np.where(x["p"] == BOTTOM, -1, np.where(x["p"] == TOP, P * (Q + 2), finite))


def constant(value: float) -> Array:
    """A number: a rational is numerator over denominator, modulo both primes."""
    if math.isnan(value):
        return pair(np.asarray(UNDEFINED), np.asarray(NONE))
    if math.isinf(value):
        return pair(np.asarray(TOP if value > 0 else BOTTOM), np.asarray(NONE))
    number = _fraction(value)
    p, q = (number.numerator % m * pow(number.denominator, -1, m) % m for m in (P, Q))
    return pair(np.asarray(p), np.asarray(q))


def _fraction(value: float) -> Fraction:
    """The number; the rounding of a simple fraction (0.1, float32's 1/3) stands for that
    fraction.
    """
    simple = Fraction(value).limit_denominator(1000)
    rounded = float(simple) == value or float(np.float32(float(simple))) == value
    return simple if rounded else Fraction(value)


def embed(integers: Array) -> Array:
    """Integers (or booleans) as pairs of residues."""
    numbers = np.asarray(integers)
    numbers = numbers.astype(object) if numbers.dtype == np.uint64 else numbers.astype(np.int64)
    return pair((numbers % P).astype(np.int64), (numbers % Q).astype(np.int64))


# ---- the column ----

Roots: TypeAlias = tuple[int, int]
"""The elements of order q whose powers are exp and exp2."""

Rule: TypeAlias = Callable[..., Array]
"""(roots, parameter, *arrays) -> array"""

_ONE = constant(1.0)


def _lift(rule: Callable[[Array, Array, int], Array]) -> Callable[[Array, Array], Array]:
    """A binary operation on both residues; special values are for the caller."""

    def apply(a: Array, b: Array) -> Array:
        q = np.where((a["q"] < 0) | (b["q"] < 0), NONE, rule(a["q"], b["q"], Q))
        return pair(rule(a["p"], b["p"], P), q)

    return apply


def _special(x: Array) -> Array:
    return x["p"] < 0


def _filled(x: Array, where: Array, p: Array | int) -> Array:
    return pair(np.where(where, p, x["p"]), np.where(where, NONE, x["q"]))


_plain_add = _lift(lambda a, b, m: (a + b) % m)
_plain_mul = _lift(lambda a, b, m: a * b % m)


def _add(roots: Roots, parameter: Parameter, a: Array, b: Array) -> Array:
    total = _plain_add(a, b)
    odd = _special(a) | _special(b)
    if not odd.any():
        return total
    ends = np.where(_special(a), a["p"], b["p"])
    clash = _special(a) & _special(b) & (a["p"] != b["p"])
    return _filled(total, odd, np.where(clash, UNDEFINED, ends))


def _neg(roots: Roots, parameter: Parameter, a: Array) -> Array:
    flipped = pair(-a["p"] % P, np.where(a["q"] < 0, NONE, -a["q"] % Q))
    swapped = np.where(a["p"] == BOTTOM, TOP, np.where(a["p"] == TOP, BOTTOM, UNDEFINED))
    return _filled(flipped, _special(a), swapped)


def _sub(roots: Roots, parameter: Parameter, a: Array, b: Array) -> Array:
    return _add(roots, None, a, _neg(roots, None, b))


def _mul(roots: Roots, parameter: Parameter, a: Array, b: Array) -> Array:
    """An infinity times 1 or -1 has a sign; times anything else it is undefined."""
    product = _plain_mul(a, b)
    odd = _special(a) | _special(b)
    if not odd.any():
        return product
    end, other = np.where(_special(a), a["p"], b["p"]), np.where(_special(a), b["p"], a["p"])
    swapped = np.where(end == BOTTOM, TOP, np.where(end == TOP, BOTTOM, UNDEFINED))
    value = np.where(other == 1, end, np.where(other == P - 1, swapped, UNDEFINED))
    return _filled(product, odd, value)


def _inverse(a: Array) -> Array:
    found = pair(power(np.maximum(a["p"], 0), P - 2, P),
                  np.where(a["q"] < 0, NONE, power(np.maximum(a["q"], 0), Q - 2, Q)))  # fmt: skip
    found = _filled(found, (a["p"] <= 0) | (a["q"] == 0), UNDEFINED)
    return _filled_zero(found, (a["p"] == BOTTOM) | (a["p"] == TOP))


def _filled_zero(x: Array, where: Array) -> Array:
    return pair(np.where(where, 0, x["p"]), np.where(where, 0, x["q"]))


def _div(roots: Roots, parameter: Parameter, a: Array, b: Array) -> Array:
    return _mul(roots, None, a, _inverse(b))


def _integer_pow(roots: Roots, parameter: Parameter, a: Array) -> Array:
    assert isinstance(parameter, int)
    n = abs(parameter)
    q = np.where(a["q"] < 0, NONE, power(np.maximum(a["q"], 0), n, Q))
    found = _filled(pair(power(np.maximum(a["p"], 0), n, P), q), _special(a), UNDEFINED)
    return found if parameter >= 0 else _inverse(found)


def _root(numerator_p: int, numerator_q: int, squares: bool) -> Rule:
    """A multiplicative root: x^n modulo each prime. A square root has values at squares only."""

    def rule(roots: Roots, parameter: Parameter, a: Array) -> Array:
        p, q = np.maximum(a["p"], 0), np.maximum(a["q"], 0)
        root_q = np.where(a["q"] < 0, NONE, power(q, numerator_q, Q))
        bad = _special(a)
        if squares:
            root_q = np.where(power(q, (Q - 1) // 2, Q) == Q - 1, NONE, root_q)
            bad = bad | (power(p, (P - 1) // 2, P) == P - 1)
        return _filled(pair(power(p, numerator_p, P), root_q), bad, UNDEFINED)

    return rule


_sqrt = _root((P + 1) // 4, (Q + 1) // 4, True)
_cbrt = _root(pow(3, -1, P - 1), pow(3, -1, Q - 1), False)


def _rsqrt(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return _inverse(_sqrt(roots, None, a))


def _exponential(a: Array, base: int) -> Array:
    spent = (a["q"] < 0) & (a["p"] >= 0)
    if spent.any() and (spent | _special(a)).all():
        raise Outside("an exponential of an exponential")
    value = power(base, np.maximum(a["q"], 0), P)
    value = np.where(spent | (a["p"] == UNDEFINED), UNDEFINED, value)
    value = np.where(a["p"] == BOTTOM, 0, np.where(a["p"] == TOP, TOP, value))
    return pair(value, np.full(value.shape, NONE))


def _exp(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return _exponential(a, roots[0])


def _exp2(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return _exponential(a, roots[1])


def _expm1(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return _sub(roots, None, _exp(roots, None, a), _ONE)


def _logistic(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return _inverse(_add(roots, None, _ONE, _exp(roots, None, _neg(roots, None, a))))


def _tanh(roots: Roots, parameter: Parameter, a: Array) -> Array:
    """2 logistic(2x) - 1."""
    two = constant(2.0)
    doubled = _logistic(roots, None, _mul(roots, None, two, a))
    return _sub(roots, None, _mul(roots, None, two, doubled), _ONE)


def _choice(largest: bool) -> Rule:
    def rule(roots: Roots, parameter: Parameter, a: Array, b: Array) -> Array:
        first = (order_key(a) >= order_key(b)) == largest
        bad = (a["p"] == UNDEFINED) | (b["p"] == UNDEFINED)
        p, q = (np.where(first, a[part], b[part]) for part in ("p", "q"))
        return _filled(pair(p, q), bad, UNDEFINED)

    return rule


def _abs(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return _choice(True)(roots, None, a, _neg(roots, None, a))


def _order(test: Callable[[Array, Array], Array]) -> Rule:
    def rule(roots: Roots, parameter: Parameter, a: Array, b: Array) -> Array:
        return test(order_key(a), order_key(b))

    return rule


def _where(roots: Roots, parameter: Parameter, c: Array, a: Array, b: Array) -> Array:
    return np.where(c, a, b)


def _is_finite(roots: Roots, parameter: Parameter, a: Array) -> Array:
    return a["p"] >= 0


def _cast(roots: Roots, parameter: Parameter, a: Array) -> Array:
    if a.dtype == PAIR:
        raise Outside(f"a rounding cast of a real to {parameter}")
    return embed(a)


def outside(reason: str) -> Rule:
    """A cell that says why there is no field evaluation."""

    def rule(roots: Roots, parameter: Parameter, *args: Array) -> Array:
        raise Outside(reason)

    return rule


def _no(function: str) -> Rule:
    return outside(f"{function} has no algebraic law that a finite field could carry")


_INTEGERS = outside("an operator of integers, which a real never meets")

FIELD: dict[str, Rule] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg, "integer_pow": _integer_pow,
    "rem": _no("a remainder"), "abs": _abs, "sign": _no("a sign"), "max": _choice(True),
    "min": _choice(False), "sqrt": _sqrt, "rsqrt": _rsqrt, "cbrt": _cbrt, "pow": _no("a power"),
    "exp": _exp, "exp2": _exp2, "expm1": _expm1, "log": _no("a logarithm"),
    "log1p": _no("a logarithm"), "logistic": _logistic, "sin": _no("sin"), "cos": _no("cos"),
    "tan": _no("tan"), "tanh": _tanh, "erf": _no("erf"), "erfc": _no("erfc"),
    "floor": _no("rounding"), "ceil": _no("rounding"), "is_finite": _is_finite,
    "eq": _order(np.equal), "ne": _order(np.not_equal), "lt": _order(np.less),
    "le": _order(np.less_equal), "gt": _order(np.greater), "ge": _order(np.greater_equal),
    "where": _where, "and": _INTEGERS, "or": _INTEGERS, "xor": _INTEGERS, "not": _INTEGERS,
    "shift_left": _INTEGERS, "shift_right_arithmetic": _INTEGERS, "shift_right_logical": _INTEGERS,
    "cast": _cast, "reduce_precision": outside("a rounding of a real"),
}  # fmt: skip
