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

>>> field = Residues(SMALL[0], seed=1)
>>> third = field.pointwise("div", None, [field.const(1, "real"), field.const(3, "real")])
>>> field.pointwise("mul", None, [third, field.const(3, "real")])["p"]
array(1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import FLOATS, REAL, Parameter
from prism_jax.ir.ops import OPS
from prism_jax.ir.values import FLOAT64

Array: TypeAlias = Any
Met: TypeAlias = tuple[str, int]
"""An operator without algebra here, and (a fingerprint of) arguments that it was given."""

PAIR = np.dtype([("p", "i8"), ("q", "i8")])
ABSENT, NEGATIVE, POSITIVE, NAN, UNWRITTEN = -1, -2, -3, -4, -5
"""Codes in place of a residue: none on this side, -inf, +inf, NaN, memory nobody wrote."""

SMALL = (60083, 60251, 60383, 60719, 61331, 61703)
LARGE = (
    939524543, 949524623, 959525579, 969525779, 979526423, 989528279, 999528539, 1009528631,
)  # fmt: skip
"""Values of q: q and 2q + 1 are prime, q = 3 mod 4 (so -1 is not a square modulo either)."""

_LN2 = math.log(2.0)


class Redraw(Exception):
    """This draw divides by zero or takes the root of a non-square: draw again."""


class Outside(Exception):
    """The program does something that residues do not model; the message names the operator."""


class Residues:
    """The domain (`ir.values.Domain`) of one draw. `strict`: the sides on which a root must be of a
    square.
    """

    def __init__(
        self,
        q: int,
        seed: int,
        strict: frozenset[str] = frozenset(),
        expand: frozenset[str] = frozenset(),
    ) -> None:
        self.q, self.p, self.strict, self.expand = q, 2 * q + 1, strict, expand
        self.seed = seed
        rng = np.random.default_rng([seed, q])
        self.root = pow(int(rng.integers(2, q)), 2, self.p)  # a square, so of order q
        self.ln2 = (int(rng.integers(2, q)), int(rng.integers(2, q)))
        self.rng = rng
        self.signs: dict[tuple[int, int], int] = {}
        self.fractions: dict[tuple[int, int], Fraction] = {}
        self.met: set[Met] = set()
        self._logs: tuple[Array, Array] | None = None

    # ---- the domain's protocol

    def draw(self, shape: tuple[int, ...]) -> Array:
        """Random reals."""
        return self._pair(self.rng.integers(0, self.p, shape), self.rng.integers(0, self.q, shape))

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor, as values of the sort."""
        return np.asarray(array) if sort == REAL else FLOAT64.load(array, sort)

    def const(self, value: bool | int | float, sort: str) -> Array:
        """A number, as a value; floats that are close to a small fraction are that fraction."""
        if sort != REAL:
            return FLOAT64.const(value, sort)
        if math.isnan(value) or math.isinf(value):
            return self._code(NAN if math.isnan(value) else POSITIVE if value > 0 else NEGATIVE)
        value = float(value)
        made = self._pair(*self._number(value))
        self.fractions[int(made["p"]), int(made["q"])] = rational(value)
        self.signs[int(made["p"]), int(made["q"])] = (value > 0) - (value < 0)
        return made

    def iota(self, values: Array, sort: str) -> Array:
        """Integers, as values of the sort."""
        if sort != REAL:
            return FLOAT64.iota(values, sort)
        return self._pair(np.asarray(values) % self.p, np.asarray(values) % self.q)

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table."""
        real = [_real(a) for a in args]
        if op == "where":
            return np.where(args[0], args[1], args[2])
        if not any(real):
            if op == "cast" and str(parameter) in FLOATS:
                values = np.asarray(args[0]).astype(np.int64)
                return self._pair(values % self.p, values % self.q)
            return FLOAT64.pointwise(op, parameter, args)
        if op in _COMPARE:
            a, b = (self._key(x) for x in args)
            self._meet("a comparison", _mix(_mix(a.view(np.uint64)) ^ b.view(np.uint64)))
            return _COMPARE[op](a, b)
        if op == "is_finite":
            return args[0]["p"] >= ABSENT
        return self._arithmetic(op, parameter, args)

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions."""
        if not _real(array):
            return FLOAT64.reduce(monoid, sort, array, dims)
        rest = [n for n in range(array.ndim) if n not in dims]
        flat = array.transpose([*rest, *dims]).reshape([array.shape[n] for n in rest] + [-1])
        if monoid in ("argmax", "argmin"):
            key = self._key(flat)
            self._meet("an argmax", key)
            return np.argmax(key if monoid == "argmax" else -key, axis=-1)
        if monoid == "sum" and not (flat["p"] < ABSENT).any():
            lost = {side: (flat[side] == ABSENT).any(-1) for side in ("p", "q")}
            p = np.where(lost["p"], ABSENT, flat["p"].sum(-1) % self.p)
            return self._pair(p, np.where(lost["q"], ABSENT, flat["q"].sum(-1) % self.q))
        total = np.broadcast_to(self.identity(monoid, sort), flat.shape[:-1])
        for n in range(flat.shape[-1]):
            total = self.combine(monoid, sort, total, flat[..., n])
        return total

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        if not _real(a):
            return FLOAT64.combine(monoid, sort, a, b)
        return self._arithmetic({"sum": "add", "prod": "mul"}.get(monoid, monoid), None, (a, b))

    def identity(self, monoid: str, sort: str) -> Array:
        """The monoid's identity."""
        if sort != REAL:
            return FLOAT64.identity(monoid, sort)
        codes = {"max": NEGATIVE, "min": POSITIVE, "argmax": NEGATIVE, "argmin": POSITIVE}
        if monoid in codes:
            return self._code(codes[monoid])
        return self._pair(np.int64(monoid == "prod"), np.int64(monoid == "prod"))

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product."""
        if not _real(a):
            return FLOAT64.matmul(a, b)
        product = self._arithmetic("mul", None, (a[..., :, :, None], b[..., None, :, :]))
        return self.reduce("sum", REAL, product, (product.ndim - 2,))

    def poison(self, shape: tuple[int, ...], sort: str) -> Array:
        """An array that nobody should read before it is written."""
        if sort != REAL:
            return FLOAT64.poison(shape, sort)
        return np.broadcast_to(self._code(UNWRITTEN), shape).copy()

    # ---- arithmetic

    def _arithmetic(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        expanded = self._expanded(op, args)
        if expanded is not None:
            return expanded
        match op:
            case "add" | "sub" | "mul" | "div":
                return self._ring(op, args[0], args[1])
            case "neg":
                return self._ring("sub", self._pair(np.int64(0), np.int64(0)), args[0])
            case "max" | "min":
                return self._extreme(op, args[0], args[1])
            case "exp" | "exp2":
                return self._exp(args[0], op == "exp2")
            case "log":
                return self._log(args[0])
            case "abs" | "sign" | "sqrt" | "rsqrt" | "integer_pow":
                return self._power(op, parameter, args[0])
            case "pow" if self._fraction_of(args[1]) is not None:
                return self._fractional(args[0], self._fraction_of(args[1]) or Fraction(0))
            case "expm1":
                return self._ring("sub", self._exp(args[0], False), self.const(1, REAL))
            case "log1p":
                return self._log(self._ring("add", args[0], self.const(1, REAL)))
            case _:
                return self._random(op, parameter, args)

    def _expanded(self, op: str, args: Sequence[Array]) -> Array | None:
        """Sigmoid and tanh by their definition, where only one of the two sides is written with
        them.
        """
        if op not in self.expand:
            return None
        x = args[0] if op == "logistic" else self._ring("add", args[0], args[0])
        minus = self._arithmetic("neg", None, (x,))
        one = self.const(1, REAL)
        sigmoid = self._ring("div", one, self._ring("add", one, self._exp(minus, False)))
        if op == "logistic":
            return sigmoid
        return self._ring("sub", self._ring("add", sigmoid, sigmoid), one)

    def _ring(self, op: str, a: Array, b: Array) -> Array:
        if op == "div":
            return self._ring("mul", a, self._power("integer_pow", -1, b))
        if (a["p"] < ABSENT).any() or (b["p"] < ABSENT).any():
            return self._infinite(op, a, b)
        sides: list[Array] = []
        for side, modulus in (("p", self.p), ("q", self.q)):
            x, y = a[side], b[side]
            value = x + y if op == "add" else x - y if op == "sub" else x * y
            sides.append(np.where((x == ABSENT) | (y == ABSENT), ABSENT, value % modulus))
        return self._pair(*sides)

    def _infinite(self, op: str, a: Array, b: Array) -> Array:
        """Element by element, with the rules of the extended reals."""
        a, b = np.broadcast_arrays(a, b)
        odd = (a["p"] < ABSENT) | (b["p"] < ABSENT)
        zero = self._pair(np.int64(0), np.int64(0))
        result = self._ring(op, np.where(odd, zero, a), np.where(odd, zero, b)).copy()
        for at in zip(*np.nonzero(odd), strict=True) if odd.ndim else [()]:
            result[at] = self._code(self._infinite_pair(op, a[at], b[at]))
        return result

    def _infinite_pair(self, op: str, a: Any, b: Any) -> int:
        x, y = int(a["p"]), int(b["p"])
        if UNWRITTEN in (x, y):
            return UNWRITTEN
        if NAN in (x, y):
            return NAN
        if op == "mul":
            sign = self._sign(a) * self._sign(b)
            return POSITIVE if sign > 0 else NEGATIVE if sign < 0 else NAN
        if op == "sub" and y < ABSENT:
            y = POSITIVE if y == NEGATIVE else NEGATIVE
        if x < ABSENT and y < ABSENT:
            return x if x == y else NAN
        return x if x < ABSENT else y

    def _sign(self, x: Any) -> int:
        if x["p"] in (NEGATIVE, POSITIVE):
            return 1 if x["p"] == POSITIVE else -1
        if x["p"] == 0:
            return 0
        found = self.signs.get((int(x["p"]), int(x["q"])))
        if found is None:
            raise Outside("mul of an infinity and a value whose sign is not known")
        return found

    def _extreme(self, op: str, a: Array, b: Array) -> Array:
        x, y = self._key(a), self._key(b)
        self._meet("a maximum or minimum", x)
        self._meet("a maximum or minimum", y)
        best = np.where((x >= y) if op == "max" else (x <= y), a, b)
        nan = (a["p"] == NAN) | (b["p"] == NAN)
        return np.where(nan, self._code(NAN), best) if nan.any() else best

    def _exp(self, x: Array, two: bool) -> Array:
        finite = x["p"] >= ABSENT
        if (finite & (x["q"] == ABSENT)).any():
            raise Outside("exp of a value that already went through exp")
        scale = self.ln2[1] if two else 1
        value = _power(np.int64(self.root), np.where(finite, x["q"], 0) * scale % self.q, self.p)
        result = self._pair(value, np.full(np.shape(value), ABSENT))
        if finite.all():
            return result
        special = np.where(x["p"] == NEGATIVE, self._pair(np.int64(0), np.int64(ABSENT)), x)
        return np.where(finite, result, special)

    def _log(self, x: Array) -> Array:
        p = x["p"]
        if (p == ABSENT).any():
            raise Outside("log of a logarithm")
        finite = p > 0
        if (_power(np.where(finite, p, 1), np.int64(self.q), self.p) != 1).any() or (
            p == NEGATIVE
        ).any():
            raise Redraw
        values, places = self._log_table()
        found = places[np.searchsorted(values, np.where(finite, p, 1))]
        result = self._pair(np.full(np.shape(p), ABSENT), found)
        special = np.where(p == 0, self._code(NEGATIVE), x)
        return np.where(finite, result, special)

    def _log_table(self) -> tuple[Array, Array]:
        if self._logs is None:
            if self.q > 1 << 20:
                raise Outside("log in a field that is too large for a table")
            values = _power(np.int64(self.root), np.arange(self.q), self.p)
            places = np.argsort(values)
            self._logs = values[places], places
        return self._logs

    def _power(self, op: str, parameter: Parameter, x: Array) -> Array:
        if (x["p"] < ABSENT).any():
            return self._infinite_power(op, parameter, x)
        sides: list[Array] = []
        for side, modulus in (("p", self.p), ("q", self.q)):
            order = (modulus - 1) // 2  # of the squares; odd
            exponent = _exponent(op, parameter, order)
            value = x[side]
            present = value != ABSENT
            if exponent < 0 and (value == 0).any():
                raise Redraw
            if op in ("sqrt", "rsqrt") and side in self.strict:
                character = _power(
                    np.where(present & (value != 0), value, 1), np.int64(order), modulus
                )
                if (character != 1).any():
                    raise Redraw
            raised = _power(
                np.where(present, value, 1), np.int64(exponent % (modulus - 1)), modulus
            )
            if op in ("sign", "integer_pow") and exponent == 0:
                raised = np.ones_like(raised)
            raised = (
                np.where(value == 0, int(exponent == 0), raised)
                if op != "sign"
                else np.where(value == 0, 0, raised)
            )
            sides.append(np.where(present, raised, ABSENT))
        return self._pair(*sides)

    def _fraction_of(self, x: Array) -> Fraction | None:
        return self.fractions.get((int(x["p"]), int(x["q"]))) if x.size == 1 else None

    def _fractional(self, x: Array, exponent: Fraction) -> Array:
        """x ** (a / b), by roots of squares where b is even."""
        if exponent.denominator == 1:
            return self._power("integer_pow", exponent.numerator, x)
        if exponent.denominator == 2:
            root = self._power("sqrt", None, x)
            return self._power("integer_pow", exponent.numerator, root)
        return self._random("pow", str(exponent), (x,))

    def _infinite_power(self, op: str, parameter: Parameter, x: Array) -> Array:
        finite = x["p"] >= ABSENT
        one = self._pair(np.int64(1), np.int64(1))
        result = self._power(op, parameter, np.where(finite, x, one))
        zero, nan = self._pair(np.int64(0), np.int64(0)), self._code(NAN)
        down = op == "rsqrt" or (
            op == "integer_pow" and isinstance(parameter, int) and parameter < 0
        )
        odd = op in ("sqrt", "rsqrt")
        even = op == "abs" or (
            op == "integer_pow" and isinstance(parameter, int) and parameter % 2 == 0
        )
        negative = (
            zero if down and not odd else nan if odd else self._code(POSITIVE if even else NEGATIVE)
        )
        special = np.where(
            x["p"] == POSITIVE, zero if down else x, np.where(x["p"] == NEGATIVE, negative, x)
        )
        return np.where(finite, result, special)

    def _random(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A random function of the operator, its parameter and its arguments."""
        state = np.uint64(_name_hash(f"{op} {parameter} {self.seed}"))
        for arg in args:
            words = (arg["p"], arg["q"]) if _real(arg) else (np.asarray(arg).astype(np.int64),)
            for word in words:
                state = _mix(state ^ np.asarray(word).astype(np.int64).view(np.uint64))
        if op == "cast" and str(parameter) not in FLOATS:
            return (state % np.uint64(2 if str(parameter) == "bool" else 5)).astype(str(parameter))
        other = _mix(state)
        self._meet(op, state)
        return self._pair(
            (state % np.uint64(self.p)).astype(np.int64),
            (other % np.uint64(self.q)).astype(np.int64),
        )

    def _meet(self, what: str, values: Array) -> None:
        """Notes the arguments of an operator that has no algebra here."""
        self.met |= {(what, int(v)) for v in np.unique(values)}

    # ---- representation

    def _pair(self, p: Array, q: Array) -> Array:
        made = np.empty(np.broadcast_shapes(np.shape(p), np.shape(q)), PAIR)
        made["p"], made["q"] = p, q
        return made

    def _code(self, code: int) -> Array:
        return self._pair(np.int64(code), np.int64(code))

    def _key(self, x: Array) -> Array:
        """A number that orders values: representatives, with the infinities at the ends."""
        order = np.where(x["p"] == ABSENT, 0, x["p"]) * (1 << 31) + x["q"]
        order = np.where(
            x["p"] == NEGATIVE, -(1 << 62), np.where(x["p"] == POSITIVE, (1 << 62), order)
        )
        return np.where(x["p"] <= NAN, -(1 << 62) - 1, order)

    def _number(self, value: float) -> tuple[int, int]:
        for scale, logarithm in (
            (_LN2, self.ln2),
            (1 / _LN2, (pow(self.ln2[0], -1, self.p), pow(self.ln2[1], -1, self.q))),
        ):
            ratio = value / scale
            exact = Fraction(ratio).limit_denominator(4096)
            if value and (
                abs(ratio - exact) < 1e-14 * abs(ratio) or value == float(np.float32(scale))
            ):
                exact = exact if abs(exact - ratio) < 1e-14 * abs(ratio) else Fraction(1)
                p, q = self._fraction(exact)
                return p * logarithm[0] % self.p, q * logarithm[1] % self.q
        return self._fraction(rational(value))

    def _fraction(self, number: Fraction) -> tuple[int, int]:
        if number.denominator % self.p == 0 or number.denominator % self.q == 0:
            raise Redraw
        p = number.numerator * pow(number.denominator, -1, self.p) % self.p
        return p, number.numerator * pow(number.denominator, -1, self.q) % self.q


def rational(value: float) -> Fraction:
    """The number a float stands for: a small fraction if one is within its rounding, else itself.

    >>> rational(1 / 3), rational(0.1 * 0.2)
    (Fraction(1, 3), Fraction(1, 50))
    """
    exact = Fraction(value)
    simple = exact.limit_denominator(10**5)
    return simple if abs(simple - exact) <= abs(exact) * Fraction(1, 2**50) else exact


def _real(x: Any) -> bool:
    return np.asarray(x).dtype == PAIR


def _exponent(op: str, parameter: Parameter, order: int) -> int:
    """The integer power that an operator is, in a group of order 2 * `order`."""
    half = (order + 1) // 2  # twice it is 1 modulo the order of the squares
    if op == "integer_pow":
        assert isinstance(parameter, int)
        return parameter
    return {"sqrt": half, "rsqrt": -half, "abs": order + 1, "sign": order}[op]


def _power(base: Array, exponent: Array, modulus: int) -> Array:
    """Elementwise base ** exponent, exponent >= 0."""
    base, exponent = np.broadcast_arrays(np.asarray(base) % modulus, np.asarray(exponent))
    result = np.ones(base.shape, np.int64)
    base, exponent = base.copy(), exponent.copy()
    while (exponent > 0).any():
        result = np.where(exponent & 1, result * base % modulus, result)
        base = base * base % modulus
        exponent = exponent >> 1
    return result


def _name_hash(text: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _mix(x: Array) -> Array:
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
assert set(_COMPARE) <= set(OPS)
