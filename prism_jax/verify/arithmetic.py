"""Arithmetic on pairs of residues: what `residues` computes with.

In: arrays of pairs (x mod p, x mod q), with codes for what is absent or infinite. Out: the same.
`Arithmetic` is the ring, exponentials, logarithms, powers and random functions of one draw; its
laws are stated in `residues`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import FLOATS, REAL, Parameter
from prism_jax.ir.values import FLOAT64
from prism_jax.verify.constants import Spelled
from prism_jax.verify.modular import (
    ABSENT,
    NAN,
    NEGATIVE,
    PAIR,
    POSITIVE,
    UNWRITTEN,
    exponent_of,
    log2_multiple,
    log_table,
    mix,
    name_hash,
    power,
    rational,
)

Array: TypeAlias = Any
Met: TypeAlias = tuple[str, int]
"""An operator without algebra here, and (a fingerprint of) arguments that it was given."""


class Redraw(Exception):
    """This draw divides by zero or takes the root of a non-square: draw again."""


class Outside(Exception):
    """The program does something that residues do not model; the message names the operator."""


class Arithmetic:
    """The numbers of one draw. `strict`: the sides on which a root must be of a square; `spelled`:
    what constants stand for (`constants`).
    """

    def __init__(
        self,
        q: int,
        seed: int,
        strict: frozenset[str] = frozenset(),
        expand: frozenset[str] = frozenset(),
        spelled: Spelled | None = None,
    ) -> None:
        self.spelled = spelled or {}
        self.q, self.p, self.strict, self.expand = q, 2 * q + 1, strict, expand
        self.seed = seed
        rng = np.random.default_rng([seed, q])
        self.root = pow(int(rng.integers(2, q)), 2, self.p)  # a square, so of order q
        self.ln2 = (int(rng.integers(2, q)), int(rng.integers(2, q)))
        self.rng = rng
        self.signs: dict[tuple[int, int], int] = {}
        self.fractions: dict[tuple[int, int], Fraction] = {}
        self.met: set[Met] = set()

    def const(self, value: bool | int | float, sort: str) -> Array:
        """A number, as a value; floats that are close to a small fraction are that fraction."""
        if sort != REAL:
            return FLOAT64.const(value, sort)
        if math.isnan(value) or math.isinf(value):
            return self.code(NAN if math.isnan(value) else POSITIVE if value > 0 else NEGATIVE)
        value = float(value)
        made = self.pair(*self.number(value))
        self.fractions[int(made["p"]), int(made["q"])] = self.spelled.get(value) or rational(value)
        self.signs[int(made["p"]), int(made["q"])] = (value > 0) - (value < 0)
        return made

    # ---- arithmetic

    def arithmetic(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        expanded = self._expanded(op, args)
        if expanded is not None:
            return expanded
        match op:
            case "add" | "sub" | "mul" | "div":
                return self._ring(op, args[0], args[1])
            case "neg":
                return self._ring("sub", self.pair(np.int64(0), np.int64(0)), args[0])
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
        minus = self.arithmetic("neg", None, (x,))
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
        return self.pair(*sides)

    def _infinite(self, op: str, a: Array, b: Array) -> Array:
        """Element by element, with the rules of the extended reals."""
        a, b = np.broadcast_arrays(a, b)
        odd = (a["p"] < ABSENT) | (b["p"] < ABSENT)
        zero = self.pair(np.int64(0), np.int64(0))
        result = self._ring(op, np.where(odd, zero, a), np.where(odd, zero, b)).copy()
        for at in zip(*np.nonzero(odd), strict=True) if odd.ndim else [()]:
            result[at] = self.code(self._infinite_pair(op, a[at], b[at]))
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
        x, y = self.key(a), self.key(b)
        self.order("a maximum or minimum", x)
        self.order("a maximum or minimum", y)
        best = np.where((x >= y) if op == "max" else (x <= y), a, b)
        nan = (a["p"] == NAN) | (b["p"] == NAN)
        return np.where(nan, self.code(NAN), best) if nan.any() else best

    def extreme_of(self, monoid: str, x: Array) -> Array:
        """The maximum or minimum along the last dimension; a NaN wins."""
        key = self.key(x)
        self.order("a maximum or minimum", key)
        place = (np.argmax if monoid == "max" else np.argmin)(key, axis=-1)
        best = np.take_along_axis(x, place[..., None], -1)[..., 0]
        nan = (x["p"] == NAN).any(-1)
        return np.where(nan, self.code(NAN), best) if nan.any() else best

    def _exp(self, x: Array, two: bool) -> Array:
        finite = x["p"] >= ABSENT
        if (finite & (x["q"] == ABSENT)).any():
            raise Outside("exp of a value that already went through exp")
        scale = self.ln2[1] if two else 1
        value = power(np.int64(self.root), np.where(finite, x["q"], 0) * scale % self.q, self.p)
        result = self.pair(value, np.full(np.shape(value), ABSENT))
        if finite.all():
            return result
        special = np.where(x["p"] == NEGATIVE, self.pair(np.int64(0), np.int64(ABSENT)), x)
        return np.where(finite, result, special)

    def _log(self, x: Array) -> Array:
        p = x["p"]
        if (p == ABSENT).any():
            raise Outside("log of a logarithm")
        finite = p > 0
        if (power(np.where(finite, p, 1), np.int64(self.q), self.p) != 1).any() or (
            p == NEGATIVE
        ).any():
            raise Redraw
        if self.q > 1 << 20:
            raise Outside("log in a field that is too large for a table")
        values, places = log_table(self.q)
        of_root = int(places[np.searchsorted(values, self.root)])
        found = places[np.searchsorted(values, np.where(finite, p, 1))]
        found = found * pow(of_root, -1, self.q) % self.q
        result = self.pair(np.full(np.shape(p), ABSENT), found)
        special = np.where(p == 0, self.code(NEGATIVE), x)
        return np.where(finite, result, special)

    def _power(self, op: str, parameter: Parameter, x: Array) -> Array:
        if (x["p"] < ABSENT).any():
            return self._infinite_power(op, parameter, x)
        sides: list[Array] = []
        for side, modulus in (("p", self.p), ("q", self.q)):
            order = (modulus - 1) // 2  # of the squares; odd
            exponent = exponent_of(op, parameter, order)
            value = x[side]
            present = value != ABSENT
            if exponent < 0 and (value == 0).any():
                raise Redraw
            if op in ("sqrt", "rsqrt") and side in self.strict:
                character = power(
                    np.where(present & (value != 0), value, 1), np.int64(order), modulus
                )
                if (character != 1).any():
                    raise Redraw
            raised = power(np.where(present, value, 1), np.int64(exponent % (modulus - 1)), modulus)
            if op in ("sign", "integer_pow") and exponent == 0:
                raised = np.ones_like(raised)
            raised = (
                np.where(value == 0, int(exponent == 0), raised)
                if op != "sign"
                else np.where(value == 0, 0, raised)
            )
            sides.append(np.where(present, raised, ABSENT))
        return self.pair(*sides)

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
        one = self.pair(np.int64(1), np.int64(1))
        result = self._power(op, parameter, np.where(finite, x, one))
        zero, nan = self.pair(np.int64(0), np.int64(0)), self.code(NAN)
        down = op == "rsqrt" or (
            op == "integer_pow" and isinstance(parameter, int) and parameter < 0
        )
        odd = op in ("sqrt", "rsqrt")
        even = op == "abs" or (
            op == "integer_pow" and isinstance(parameter, int) and parameter % 2 == 0
        )
        negative = (
            zero if down and not odd else nan if odd else self.code(POSITIVE if even else NEGATIVE)
        )
        special = np.where(
            x["p"] == POSITIVE, zero if down else x, np.where(x["p"] == NEGATIVE, negative, x)
        )
        return np.where(finite, result, special)

    def _random(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A random function of the operator, its parameter and its arguments."""
        state = np.uint64(name_hash(f"{op} {parameter} {self.seed}"))
        for arg in args:
            words = (arg["p"], arg["q"]) if is_real(arg) else (np.asarray(arg).astype(np.int64),)
            for word in words:
                state = mix(state ^ np.asarray(word).astype(np.int64).view(np.uint64))
        if op == "cast" and str(parameter) not in FLOATS:
            return (state % np.uint64(2 if str(parameter) == "bool" else 5)).astype(str(parameter))
        other = mix(state)
        self.meet(op, state)
        return self.pair(
            (state % np.uint64(self.p)).astype(np.int64),
            (other % np.uint64(self.q)).astype(np.int64),
        )

    def meet(self, what: str, values: Array) -> None:
        """Notes the arguments of an operator that has no algebra here."""
        self.met |= {(what, int(v)) for v in np.unique(values)}

    def order(self, what: str, keys: Array) -> None:
        """Notes what is put in order; infinities are where they are in any order."""
        self.meet(what, keys[np.abs(keys) < (1 << 62)])

    # ---- representation

    def pair(self, p: Array, q: Array) -> Array:
        made = np.empty(np.broadcast_shapes(np.shape(p), np.shape(q)), PAIR)
        made["p"], made["q"] = p, q
        return made

    def code(self, code: int) -> Array:
        return self.pair(np.int64(code), np.int64(code))

    def key(self, x: Array) -> Array:
        """A number that orders values: representatives, with the infinities at the ends."""
        order = np.where(x["p"] == ABSENT, 0, x["p"]) * (1 << 31) + x["q"]
        order = np.where(
            x["p"] == NEGATIVE, -(1 << 62), np.where(x["p"] == POSITIVE, (1 << 62), order)
        )
        return np.where(x["p"] <= NAN, -(1 << 62) - 1, order)

    def number(self, value: float) -> tuple[int, int]:
        if value in self.spelled:
            return self._fraction(self.spelled[value])
        found = log2_multiple(value)
        if found is not None:
            p, q = self._fraction(found[0])
            one, other = (
                pow(x, found[1], m) for x, m in zip(self.ln2, (self.p, self.q), strict=True)
            )
            return p * one % self.p, q * other % self.q
        return self._fraction(rational(value))

    def _fraction(self, number: Fraction) -> tuple[int, int]:
        if number.denominator % self.p == 0 or number.denominator % self.q == 0:
            raise Redraw
        p = number.numerator * pow(number.denominator, -1, self.p) % self.p
        return p, number.numerator * pow(number.denominator, -1, self.q) % self.q


def is_real(x: Any) -> bool:
    """Whether an array holds reals."""
    return np.asarray(x).dtype == PAIR
