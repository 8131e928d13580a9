"""Interval arithmetic: the `range` column of the operator table.

A `Range` is a closed interval of the extended numbers plus "may be NaN". What is said of a result
holds for its float64 evaluation up to rounding of the end points: overflow shows as an infinite
end. Zeros are signed: an interval that ends at
-0.0 may contain it, one that starts at +0.0 does not, so that 1 / exp(x) is known to be positive.

>>> RANGES["exp"]("real", None, Range(-math.inf, 0.0, False))
Range(low=0.0, high=1.0, nan=False)
>>> RANGES["div"]("real", None, Range(1.0, 2.0, False), Range(-0.0, 1.0, False)).low
-inf
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from prism_jax.ir.nodes import FLOATS, REAL, Parameter

INF = math.inf


@dataclass(frozen=True)
class Range:
    """Every value is NaN (only if `nan`) or lies in [low, high]."""

    low: float
    high: float
    nan: bool = False

    @property
    def finite(self) -> bool:
        """No NaN, no infinity."""
        return not self.nan and self.low > -INF and self.high < INF

    def has(self, value: float) -> bool:
        """Whether the interval contains the number."""
        return self.low <= value <= self.high

    @property
    def may_be_negative_zero(self) -> bool:
        """Whether -0.0 may occur: then 1 / x may be -inf."""
        return self.low < 0 <= self.high or _key(self.low) == _key(-0.0)

    def __or__(self, other: Range) -> Range:
        """Either."""
        return Range(
            _lowest(self.low, other.low), _highest(self.high, other.high), self.nan or other.nan
        )


Rule: TypeAlias = Callable[..., Range]
"""(sort of the result, parameter, *ranges of the arguments) -> range of the result."""


def full(sort: str) -> Range:
    """What is known of a value of which nothing is known."""
    if sort == REAL:
        return Range(-INF, INF, True)
    if sort == "bool":
        return Range(0.0, 1.0)
    info = np.iinfo(sort)
    return Range(float(info.min), float(info.max))


def point(value: bool | int | float) -> Range:
    """The range of a constant."""
    number = float(value)
    return Range(-INF, INF, True) if math.isnan(number) else Range(number, number)


def _key(value: float) -> tuple[float, float]:
    return value, math.copysign(1.0, value)


def _lowest(*values: float) -> float:
    return min(values, key=_key)


def _highest(*values: float) -> float:
    return max(values, key=_key)


def _infinite(a: Range) -> bool:
    return a.low == -INF or a.high == INF


_TRUE, _FALSE, _EITHER = Range(1.0, 1.0), Range(0.0, 0.0), Range(0.0, 1.0)


# ---- arithmetic ----


def _add(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    clash = (a.high == INF and b.low == -INF) or (a.low == -INF and b.high == INF)
    low = -INF if -INF in (a.low, b.low) else a.low + b.low
    high = INF if INF in (a.high, b.high) else a.high + b.high
    if sort == REAL and low == 0:  # x + -x is +0, and -0 + -0 is -0
        low = -0.0 if a.may_be_negative_zero and b.may_be_negative_zero else 0.0
    return Range(low, high, a.nan or b.nan or clash)


def _neg(sort: str, parameter: Parameter, a: Range) -> Range:
    return Range(-a.high, -a.low, a.nan)


def _sub(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    return _add(sort, parameter, a, _neg(sort, parameter, b))


def _mul(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    clash = (_infinite(a) and b.has(0)) or (_infinite(b) and a.has(0))
    ends = [_times(x, y) for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
    negative = a.low < 0 or b.low < 0 or a.may_be_negative_zero or b.may_be_negative_zero
    low = _lowest(*ends)
    low = -0.0 if low == 0 and negative else low
    return Range(low, _highest(*ends), a.nan or b.nan or clash)


def _times(x: float, y: float) -> float:
    return (
        x * y
        if x != 0 and y != 0
        else math.copysign(0.0, math.copysign(1, x) * math.copysign(1, y))
    )


def _div(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    if sort != REAL:
        if b.has(0):  # x / 0 is -1
            most = max(abs(a.low), abs(a.high), 1.0)
            return Range(-most, most)
        ends = [math.trunc(x / y) for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
        return Range(float(min(ends)), float(max(ends)))
    clash = (a.has(0) and b.has(0)) or (_infinite(a) and _infinite(b))
    if b.low < 0 <= b.high or b.may_be_negative_zero:
        return Range(-INF, INF, a.nan or b.nan or clash)
    ends = [_quotient(x, y) for x, y in itertools.product((a.low, a.high), (b.low, b.high))]
    signed = a.low < 0 or b.low < 0 or a.may_be_negative_zero
    low = _lowest(*ends)
    return Range(-0.0 if low == 0 and signed else low, _highest(*ends), a.nan or b.nan or clash)


def _quotient(x: float, y: float) -> float:
    sign = math.copysign(1, x) * math.copysign(1, y)
    if x == 0 or (math.isinf(y) and not math.isinf(x)):
        return math.copysign(0.0, sign)
    if y == 0 or math.isinf(x):
        return math.copysign(1.0 if math.isinf(y) else INF, sign)
    with np.errstate(over="ignore"):
        return float(np.float64(x) / np.float64(y))


def _rem(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    most = INF if b.has(0) else max(abs(b.low), abs(b.high))  # integers: x rem 0 is x
    low, high = max(min(a.low, -0.0), -most), min(max(a.high, 0.0), most)
    bad = sort == REAL and (b.has(0) or _infinite(a))
    return Range(low if a.low < 0 or a.may_be_negative_zero else 0.0, high, a.nan or b.nan or bad)


def _abs(sort: str, parameter: Parameter, a: Range) -> Range:
    ends = (abs(a.low), abs(a.high))
    return Range(0.0 if a.has(0) else min(ends), max(ends), a.nan)


def _sign(sort: str, parameter: Parameter, a: Range) -> Range:
    low, high = float(np.sign(a.low)), float(np.sign(a.high))
    return Range(-0.0 if low == 0 and a.may_be_negative_zero else low, high, a.nan)


def _max(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    # max(-0, +0) may be either zero.
    low = max(a.low, b.low)
    zero = low == 0 and (a.may_be_negative_zero or b.may_be_negative_zero)
    return Range(-0.0 if zero else low, _highest(a.high, b.high), a.nan or b.nan)


def _min(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    return Range(_lowest(a.low, b.low), min(a.high, b.high) + 0.0, a.nan or b.nan)


def _integer_pow(sort: str, parameter: Parameter, a: Range) -> Range:
    assert isinstance(parameter, int)
    if parameter < 0:
        return _div(sort, None, Range(1.0, 1.0), _integer_pow(sort, -parameter, a))
    if parameter == 0:
        return Range(1.0, 1.0)
    ends = [_power(a.low, parameter), _power(a.high, parameter)]
    if parameter % 2:
        return Range(ends[0], ends[1], a.nan)
    return Range(0.0 if a.has(0) else min(ends), max(ends), a.nan)


def _power(x: float, n: int) -> float:
    try:
        return math.copysign(abs(x) ** n, x if n % 2 else 1.0)
    except OverflowError:
        return math.copysign(INF, x if n % 2 else 1.0)


def _pow(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    nan = a.nan or b.nan
    if a.low < 0 or a.may_be_negative_zero:
        return Range(-INF, INF, True)
    with np.errstate(all="ignore"):
        ends = [
            float(np.power(x, y)) for x, y in itertools.product((a.low, a.high), (b.low, b.high))
        ]
    return Range(min(*ends, *((1.0,) if b.has(0) or a.has(1) else ())),
                 max(*ends, *((1.0,) if b.has(0) or a.has(1) or nan else ())), nan)  # fmt: skip


# ---- functions of one argument ----


def _monotone(name: str, low: float = -INF) -> Rule:
    """A monotone function, NaN below `low`."""

    def rule(sort: str, parameter: Parameter, a: Range) -> Range:
        from prism_jax.ir.ops import OPS

        start = a.low if a.low >= low else (low or -0.0)
        ends = [float(OPS[name].f64(parameter, np.float64(x))) for x in (start, max(a.high, start))]
        ends.sort(key=_key)
        return Range(ends[0], ends[1], a.nan or a.low < low)

    return rule


def _rsqrt(sort: str, parameter: Parameter, a: Range) -> Range:
    inside = Range(max(a.low, -0.0, key=_key), max(a.high, 0.0), a.nan or a.low < 0)
    root = Range(
        math.copysign(math.sqrt(inside.low), inside.low), math.sqrt(inside.high), inside.nan
    )
    return _div(sort, None, Range(1.0, 1.0), root)


def _wave(sort: str, parameter: Parameter, a: Range) -> Range:
    return Range(-1.0, 1.0, a.nan or _infinite(a))


def _tan(sort: str, parameter: Parameter, a: Range) -> Range:
    return Range(-INF, INF, a.nan or _infinite(a))


# ---- comparison, choice, bits ----


def _is_finite(sort: str, parameter: Parameter, a: Range) -> Range:
    return _TRUE if a.finite else _EITHER


def _compare(always: Callable[[Range, Range], bool], never: Callable[[Range, Range], bool]) -> Rule:
    """NaN makes a comparison false, so it stands in the way of `always` only."""

    def rule(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
        if never(a, b):
            return _FALSE
        return _TRUE if always(a, b) and not (a.nan or b.nan) else _EITHER

    return rule


def _apart(a: Range, b: Range) -> bool:
    return a.high < b.low or b.high < a.low


def _ne(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    if _apart(a, b):
        return _TRUE
    same = a.low == a.high == b.low == b.high and not (a.nan or b.nan)
    return _FALSE if same else _EITHER


def _where(sort: str, parameter: Parameter, c: Range, a: Range, b: Range) -> Range:
    return a if c.low > 0 else b if c.high <= 0 else a | b


def _and(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    return Range(0.0, min(a.high, b.high)) if a.low >= 0 and b.low >= 0 else full(sort)


def _or(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    if a.low < 0 or b.low < 0:
        return full(sort)
    return Range(0.0, float(2 ** int(max(a.high, b.high)).bit_length() - 1))


def _not(sort: str, parameter: Parameter, a: Range) -> Range:
    top = 1.0 if sort == "bool" else float(np.iinfo(sort).max) if sort.startswith("u") else -1.0
    return Range(top - a.high, top - a.low)


def _shift_left(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    if a.low < 0 or b.low < 0 or b.high >= 64:
        return full(sort)
    return Range(0.0 if b.high >= np.iinfo(sort).bits else a.low * 2**b.low, a.high * 2**b.high)


def _shift_right(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    if sort.startswith("u") and a.high > np.iinfo(sort).max // 2:
        return full(sort)  # the highest bit is copied
    return Range(min(a.low, 0.0), max(a.high, 0.0)) if a.low >= 0 or b.low >= 0 else full(sort)


def _shift_right_logical(sort: str, parameter: Parameter, a: Range, b: Range) -> Range:
    return Range(0.0, a.high) if a.low >= 0 else full(sort)


def _cast(sort: str, parameter: Parameter, a: Range) -> Range:
    from prism_jax.ir.ops import OPS

    dtype = str(parameter)
    if dtype in FLOATS:
        ends = [float(OPS["cast"].f64(dtype, np.float64(x))) for x in (a.low, a.high)]
        if any(map(math.isnan, ends)):  # float8_e4m3fn has no infinities
            return full(sort)
        return Range(ends[0], ends[1], a.nan)
    if dtype == "bool":
        return _TRUE if not a.has(0) else _FALSE if a == Range(0.0, 0.0) else _EITHER
    limits = full(dtype)
    low, high = float(np.trunc(a.low)), float(np.trunc(a.high))
    if limits.low <= low and high <= limits.high and not a.nan:
        return Range(low, high)
    return limits


RANGES: dict[str, Rule] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "rem": _rem, "neg": _neg, "abs": _abs,
    "sign": _sign, "max": _max, "min": _min, "integer_pow": _integer_pow, "pow": _pow,
    "sqrt": _monotone("sqrt", 0.0), "rsqrt": _rsqrt, "cbrt": _monotone("cbrt"),
    "exp": _monotone("exp"), "exp2": _monotone("exp2"), "expm1": _monotone("expm1"),
    "log": _monotone("log", 0.0), "log1p": _monotone("log1p", -1.0),
    "logistic": _monotone("logistic"), "tanh": _monotone("tanh"), "erf": _monotone("erf"),
    "erfc": _monotone("erfc"), "floor": _monotone("floor"), "ceil": _monotone("ceil"),
    "sin": _wave, "cos": _wave, "tan": _tan, "is_finite": _is_finite,
    "eq": _compare(lambda a, b: a.low == a.high == b.low == b.high, _apart), "ne": _ne,
    "lt": _compare(lambda a, b: a.high < b.low, lambda a, b: a.low >= b.high),
    "le": _compare(lambda a, b: a.high <= b.low, lambda a, b: a.low > b.high),
    "gt": _compare(lambda a, b: a.low > b.high, lambda a, b: a.high <= b.low),
    "ge": _compare(lambda a, b: a.low >= b.high, lambda a, b: a.high < b.low),
    "where": _where, "and": _and, "or": _or, "xor": _or, "not": _not, "shift_left": _shift_left,
    "shift_right_arithmetic": _shift_right, "shift_right_logical": _shift_right_logical,
    "cast": _cast, "reduce_precision": _monotone("reduce_precision"),
}  # fmt: skip


def of_operator(op: str, sort: str, parameter: Parameter, args: tuple[Range, ...]) -> Range:
    """The range of an operator's result. Integers that may leave their dtype wrap, so nothing is
    known of them.
    """
    found = RANGES[op](sort, parameter, *args)
    if sort == REAL:
        return found
    limits = full(sort)
    exact = max(abs(found.low), abs(found.high)) < 2.0**53
    return found if exact and limits.low <= found.low and found.high <= limits.high else limits


def of_monoid(monoid: str, sort: str, body: Range, count: int | None) -> Range:
    """The range of a reduction over `count` elements (None: an unknown number, at least one)."""
    if monoid in ("max", "min"):
        return body
    if monoid in ("any", "all"):
        return _EITHER if body.low != body.high else body
    if monoid in ("argmax", "argmin"):
        return Range(0.0, INF if count is None else float(count - 1))
    many = INF if count is None else float(count)
    if monoid == "sum":
        low = body.low if count is None and body.low >= 0 else _times(body.low, many)
        high = body.high if count is None and body.high <= 0 else _times(body.high, many)
        found = Range(low, high, body.nan or (body.low == -INF and body.high == INF))
    else:
        found = _product(body, count)
    if sort == REAL:
        return found
    limits = full(sort)
    exact = max(abs(found.low), abs(found.high)) < 2.0**53
    return found if exact and limits.low <= found.low and found.high <= limits.high else limits


def _product(body: Range, count: int | None) -> Range:
    most = max(abs(body.low), abs(body.high))
    high = 1.0 if most <= 1 else INF if count is None else _power(most, count)
    clash = (
        body.low < 1 and high == INF
    )  # what has overflowed meets a zero, or what has underflowed
    low = 0.0 if body.low >= 0 and not body.may_be_negative_zero else -high
    return Range(low, high, body.nan or clash)
