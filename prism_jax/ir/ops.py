"""The operator table: one row per operator and per monoid, every meaning of it in one place.

Adding an operator is adding a row, here or (`field`, `range`) in the table of the module named.
`parameter` is the row's literal: an exponent, a dtype, a bit width. Columns:

* `sort(argument sorts, parameter)` - the sort of the result;
* `f64(parameter, *arrays)` - the value on NumPy arrays (reals as float64): the oracle's meaning;
* `accepts` - the sorts of the arguments, all alike: "real", "integer", "number" (real or integer),
  "bits" (integer or bool) or "any"; "choice" is a bool and two alike;
* `field` - the value over a pair of finite fields (`ir/residues.py`), or `Outside` with a reason;
* `range` - interval arithmetic (`ir/ranges.py`);
* `monotone` - per argument 1 (never falling), -1 (never rising) or 0, for reals where defined;
* `cost` - "free", "add" or "mul" (one instruction), "special" (one special-function call), "slow"
  (many instructions);
* `triton`, `jnp` - text, with `{0}`, `{1}` for the arguments and `{p}` for the parameter; for the
  reals' own width write `{f}`.

>>> float(OPS["sub"].f64(None, np.float64(5), np.float64(3)))
2.0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_jax.ir import ranges, residues
from prism_jax.ir.nodes import FLOATS, REAL, Parameter, sort_of

Sorts = tuple[str, ...]


@dataclass(frozen=True)
class Operator:
    """A row of `OPS`."""

    name: str
    arity: int
    sort: Callable[[Sorts, Parameter], str]
    f64: Callable[..., Any]
    cost: str
    triton: str
    jnp: str
    accepts: str
    field: residues.Rule
    range: ranges.Rule
    monotone: tuple[int, ...]
    commutative: bool = False


@dataclass(frozen=True)
class Monoid:
    """A row of `MONOIDS`: an associative, commutative `combine` with its `identity` (per sort).

    `idempotent`: x (+) x = x. `triton_reduce` reduces a tile `{0}` along dimension `{d}`;
    `jnp_reduce` an array along `{d}`.
    """

    name: str
    identity: Callable[[str], float | int | bool]
    combine: Callable[[Any, Any], Any]
    reduce: Callable[[Any, tuple[int, ...]], Any]
    idempotent: bool
    triton: str
    triton_reduce: str
    jnp: str
    jnp_reduce: str


def _same(sorts: Sorts, parameter: Parameter) -> str:
    return sorts[0]


def _last(sorts: Sorts, parameter: Parameter) -> str:
    return sorts[-1]


def _bool(sorts: Sorts, parameter: Parameter) -> str:
    return "bool"


def _cast_sort(sorts: Sorts, parameter: Parameter) -> str:
    return sort_of(str(parameter))


def numpy_dtype(dtype: str) -> Any:
    """The NumPy dtype of a declared dtype; narrow floats come from ml_dtypes."""
    if dtype == "bfloat16" or dtype.startswith("float8"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, dtype))
    return np.dtype(dtype)


def _cast(parameter: Parameter, x: Any) -> Any:
    """An opaque cast: the value is rounded to the dtype; reals stay float64 carriers."""
    dtype = str(parameter)
    with np.errstate(all="ignore"):
        if dtype in FLOATS:
            return np.asarray(x, np.float64).astype(numpy_dtype(dtype)).astype(np.float64)
        if np.issubdtype(np.asarray(x).dtype, np.floating) and dtype != "bool":
            info = np.iinfo(dtype)  # XLA saturates, and sends NaN to 0
            x = np.where(np.isnan(x), 0, np.clip(np.trunc(x), float(info.min), float(info.max)))
            low, high = np.asarray(x) <= float(info.min), np.asarray(x) >= float(info.max)
            whole = np.where(low | high, 0, x).astype(dtype)
            return np.where(low, info.min, np.where(high, info.max, whole)).astype(dtype)
        return np.asarray(x).astype(dtype)


def _reduce_precision(parameter: Parameter, x: Any) -> Any:
    """Rounds to `parameter` = (exponent bits, mantissa bits), as `jax.lax.reduce_precision`."""
    assert isinstance(parameter, tuple)
    exponent, mantissa = parameter
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        size = np.maximum(np.floor(np.log2(np.where(x == 0, 1, np.abs(x)))), -1022)
        scale = np.exp2(size - mantissa)  # at least float64's smallest number
        rounded = np.where(np.isfinite(x) & (x != 0), np.round(x / scale) * scale, x)
        top = 2.0 ** (2 ** (exponent - 1) - 1) * (2 - 2.0**-mantissa)
        tiny = 2.0 ** (2 - 2 ** (exponent - 1))
        rounded = np.where(np.abs(rounded) > top, np.copysign(np.inf, x), rounded)
        return np.where(
            np.isnan(x), x, np.where(np.abs(rounded) < tiny, np.copysign(0.0, x), rounded)
        )


def _np(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def apply(parameter: Parameter, *args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return apply


def _scipy(name: str) -> Callable[..., Any]:
    def apply(parameter: Parameter, *args: Any) -> Any:
        from scipy import special

        with np.errstate(all="ignore"):
            return getattr(special, name)(*args)

    return apply


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(parameter: Parameter, *args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return apply


def _div(a: Any, b: Any) -> Any:
    if np.issubdtype(np.asarray(a).dtype, np.floating):
        return np.divide(a, b)
    safe = np.where(b == 0, 1, b)  # integers truncate; XLA gives -1 for a division by zero
    with np.errstate(over="ignore"):  # the least integer has no absolute value, and over -1 stays
        down = np.floor_divide(a, safe)
        up = (down * safe != a) & ((a < 0) != (safe < 0))
        return np.where(b == 0, -1, down + up).astype(np.asarray(a).dtype)


def _rem(a: Any, b: Any) -> Any:
    if np.issubdtype(np.asarray(a).dtype, np.floating):
        return np.fmod(a, b)
    return np.where(b == 0, a, np.fmod(a, np.where(b == 0, 1, b))).astype(np.asarray(a).dtype)


def _integer_pow(parameter: Parameter, x: Any) -> Any:
    assert isinstance(parameter, int)
    with np.errstate(all="ignore"):
        return np.power(x, parameter)


def _shift(left: bool, logical: bool) -> Callable[..., Any]:
    """As XLA: an arithmetic shift copies the highest bit, of unsigned numbers too."""

    def apply(a: Any, b: Any) -> Any:
        a = np.asarray(a)
        bits = a.dtype.itemsize * 8
        seen = a.view(f"uint{bits}" if logical or left else f"int{bits}")
        inside = (b >= 0) & (np.asarray(b).astype(np.int64) < bits)
        count = np.where(inside, b, 0).astype(seen.dtype)
        moved = (np.left_shift if left else np.right_shift)(seen, count)
        beyond = 0 if left or logical else np.where(seen < 0, -1, 0)
        return np.where(inside, moved, beyond).astype(seen.dtype).view(a.dtype)

    return apply


def _row(
    name: str, arity: int, f64: Callable[..., Any], cost: str, triton: str, jnp: str,
    sort: Callable[[Sorts, Parameter], str] = _same, commutative: bool = False,
) -> Operator:  # fmt: skip
    return Operator(
        name, arity, sort, f64, cost, triton, jnp, _ACCEPTS.get(name, "real"),
        residues.FIELD[name], ranges.RANGES[name], _MONOTONE[name], commutative,
    )  # fmt: skip


_ARITHMETIC = ("add", "sub", "mul", "div", "rem", "neg", "abs", "sign", "integer_pow")
_SHIFTS = ("shift_left", "shift_right_arithmetic", "shift_right_logical")
_ACCEPTS: dict[str, str] = {
    **dict.fromkeys(_ARITHMETIC, "number"),
    **dict.fromkeys(("max", "min", "eq", "ne", "lt", "le", "gt", "ge", "cast"), "any"),
    **dict.fromkeys(("and", "or", "xor", "not"), "bits"),
    **dict.fromkeys(_SHIFTS, "integer"),
    "where": "choice",
}

_MONOTONE: dict[str, tuple[int, ...]] = {
    "add": (1, 1), "sub": (1, -1), "mul": (0, 0), "div": (0, 0), "rem": (0, 0), "neg": (-1,),
    "abs": (0,), "sign": (1,), "max": (1, 1), "min": (1, 1), "integer_pow": (0,), "pow": (0, 0),
    "sqrt": (1,), "rsqrt": (-1,), "cbrt": (1,), "exp": (1,), "exp2": (1,), "expm1": (1,),
    "log": (1,), "log1p": (1,), "logistic": (1,), "tanh": (1,), "erf": (1,), "erfc": (-1,),
    "floor": (1,), "ceil": (1,), "sin": (0,), "cos": (0,), "tan": (0,), "is_finite": (0,),
    "eq": (0, 0), "ne": (0, 0), "lt": (-1, 1), "le": (-1, 1), "gt": (1, -1), "ge": (1, -1),
    "where": (0, 1, 1), "and": (0, 0), "or": (0, 0), "xor": (0, 0), "not": (0,),
    "shift_left": (0, 0), "shift_right_arithmetic": (0, 0), "shift_right_logical": (0, 0),
    "cast": (0,), "reduce_precision": (1,),
}  # fmt: skip

_ROWS = (
    # arithmetic
    _row("add", 2, _np("add"), "add", "{0} + {1}", "{0} + {1}", commutative=True),
    _row("sub", 2, _np("subtract"), "add", "{0} - {1}", "{0} - {1}"),
    _row("mul", 2, _np("multiply"), "mul", "{0} * {1}", "{0} * {1}", commutative=True),
    _row("div", 2, _quiet(_div), "slow", "{0} / {1}", "lax.div({0}, {1})"),
    _row("rem", 2, _quiet(_rem), "slow", "{0} % {1}", "lax.rem({0}, {1})"),
    _row("neg", 1, _np("negative"), "add", "-{0}", "-{0}"),
    _row("abs", 1, _np("abs"), "add", "tl.abs({0})", "jnp.abs({0})"),
    _row("sign", 1, _np("sign"), "add",
         "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, {0}))", "jnp.sign({0})"),
    _row("max", 2, _np("maximum"), "add",
         "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
         "jnp.maximum({0}, {1})", commutative=True),
    _row("min", 2, _np("minimum"), "add",
         "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
         "jnp.minimum({0}, {1})", commutative=True),
    _row("integer_pow", 1, _integer_pow, "mul", "{power}", "lax.integer_pow({0}, {p})"),
    # powers, exponentials, logarithms
    _row("sqrt", 1, _np("sqrt"), "special", "tl.sqrt({0})", "jnp.sqrt({0})"),
    _row("rsqrt", 1, _quiet(lambda x: 1 / np.sqrt(x)), "special", "tl.rsqrt({0})",
         "lax.rsqrt({0})"),
    _row("cbrt", 1, _np("cbrt"), "slow",
         "tl.where({0} < 0, -1.0, 1.0) * tl.exp2(tl.log2(tl.abs({0})) / 3.0)", "jnp.cbrt({0})"),
    _row("pow", 2, _np("power"), "slow", "tl.exp2({1} * tl.log2({0}))", "jnp.power({0}, {1})"),
    _row("exp", 1, _np("exp"), "special", "tl.exp({0})", "jnp.exp({0})"),
    _row("exp2", 1, _np("exp2"), "special", "tl.exp2({0})", "jnp.exp2({0})"),
    _row("expm1", 1, _np("expm1"), "slow",
         "tl.where(tl.abs({0}) < 0.01, {0} * (1.0 + {0} * (0.5 + {0} * (1.0 / 6.0 + {0} / 24.0))), "
         "tl.exp({0}) - 1.0)",
         "jnp.expm1({0})"),
    _row("log", 1, _np("log"), "special", "tl.log({0})", "jnp.log({0})"),
    _row("log1p", 1, _np("log1p"), "slow",
         "tl.where(tl.abs({0}) < 0.01, {0} * (1.0 - {0} * (0.5 - {0} * (1.0 / 3.0 - {0} * 0.25))), "
         "tl.log(1.0 + {0}))",
         "jnp.log1p({0})"),
    _row("logistic", 1, _quiet(lambda x: 1 / (1 + np.exp(-x))), "special", "tl.sigmoid({0})",
         "lax.logistic({0})"),
    # trigonometry and error functions
    _row("sin", 1, _np("sin"), "slow", "tl.sin({0})", "jnp.sin({0})"),
    _row("cos", 1, _np("cos"), "slow", "tl.cos({0})", "jnp.cos({0})"),
    _row("tan", 1, _np("tan"), "slow", "tl.sin({0}) / tl.cos({0})", "jnp.tan({0})"),
    _row("tanh", 1, _np("tanh"), "special",
         "tl.where(tl.abs({0}) < 0.02, {0} * (1.0 - {0} * {0} / 3.0), "
         "2.0 * tl.sigmoid(2.0 * {0}) - 1.0)",
         "jnp.tanh({0})"),
    _row("erf", 1, _scipy("erf"), "slow", "tl.erf({0})", "lax.erf({0})"),
    _row("erfc", 1, _scipy("erfc"), "slow", "1.0 - tl.erf({0})", "lax.erfc({0})"),
    # rounding
    _row("floor", 1, _np("floor"), "add", "tl.floor({0})", "jnp.floor({0})"),
    _row("ceil", 1, _np("ceil"), "add", "tl.ceil({0})", "jnp.ceil({0})"),
    _row("is_finite", 1, _np("isfinite"), "add", "(tl.abs({0}) < float('inf'))",
         "lax.is_finite({0})", _bool),
    # comparison, choice
    _row("eq", 2, _np("equal"), "add", "{0} == {1}", "{0} == {1}", _bool, True),
    _row("ne", 2, _np("not_equal"), "add", "{0} != {1}", "{0} != {1}", _bool, True),
    _row("lt", 2, _np("less"), "add", "{0} < {1}", "{0} < {1}", _bool),
    _row("le", 2, _np("less_equal"), "add", "{0} <= {1}", "{0} <= {1}", _bool),
    _row("gt", 2, _np("greater"), "add", "{0} > {1}", "{0} > {1}", _bool),
    _row("ge", 2, _np("greater_equal"), "add", "{0} >= {1}", "{0} >= {1}", _bool),
    _row("where", 3, _np("where"), "add", "tl.where({0}, {1}, {2})",
         "jnp.where({0}, {1}, {2})", _last),
    # booleans and bits
    _row("and", 2, _np("bitwise_and"), "add", "{0} & {1}", "{0} & {1}", commutative=True),
    _row("or", 2, _np("bitwise_or"), "add", "{0} | {1}", "{0} | {1}", commutative=True),
    _row("xor", 2, _np("bitwise_xor"), "add", "{0} ^ {1}", "{0} ^ {1}", commutative=True),
    _row("not", 1, _np("invert"), "add", "~{0}", "~{0}"),
    _row("shift_left", 2, _quiet(_shift(True, False)), "add", "{0} << {1}",
         "lax.shift_left({0}, {1})"),
    _row("shift_right_arithmetic", 2, _quiet(_shift(False, False)), "add", "{0} >> {1}",
         "lax.shift_right_arithmetic({0}, {1})"),
    _row("shift_right_logical", 2, _quiet(_shift(False, True)), "add",
         "({0}.to(tl.uint{bits}, bitcast=True) >> {1}.to(tl.uint{bits}, bitcast=True))"
         ".to(tl.int{bits}, bitcast=True)",
         "lax.shift_right_logical({0}, {1})"),
    # opaque casts (design, section 4): the only rounding inside a program
    _row("cast", 1, _cast, "add", "{0}.to({p})", "{0}.astype({p})", _cast_sort),
    _row("reduce_precision", 1, _reduce_precision, "add", "{reduce_precision}",
         "lax.reduce_precision({0}, *{p})"),
)  # fmt: skip

OPS: dict[str, Operator] = {row.name: row for row in _ROWS}


def _extreme(sign: int) -> Callable[[str], float | int | bool]:
    def identity(sort: str) -> float | int | bool:
        if sort == REAL:
            return sign * float("inf")
        if sort == "bool":
            return sign > 0
        info = np.iinfo(sort)
        return int(info.max if sign > 0 else info.min)

    return identity


def _reducer(name: str) -> Callable[[Any, tuple[int, ...]], Any]:
    function = getattr(np, name)

    def reduce(x: Any, dims: tuple[int, ...]) -> Any:
        with np.errstate(all="ignore"):
            return function(x, axis=dims, **({"dtype": x.dtype} if name in ("sum", "prod") else {}))

    return reduce


def _arg(sign: int) -> Callable[[Any, tuple[int, ...]], Any]:
    def reduce(x: Any, dims: tuple[int, ...]) -> Any:
        assert len(dims) == 1
        best = (
            np.max(x, axis=dims, keepdims=True) if sign > 0 else np.min(x, axis=dims, keepdims=True)
        )
        return np.argmax((x == best) | (x != x), axis=dims[0])  # the first NaN wins, as in XLA

    return reduce


def _no_combine(a: Any, b: Any) -> Any:
    raise AssertionError("argmax and argmin combine pairs (value, index), not values")


MONOIDS: dict[str, Monoid] = {
    row.name: row
    for row in (
        Monoid("sum", lambda s: 0, np.add, _reducer("sum"), False,
               "{0} + {1}", "tl.sum({0}, {d})", "{0} + {1}", "jnp.sum({0}, {d})"),
        Monoid("prod", lambda s: 1, np.multiply, _reducer("prod"), False,
               "{0} * {1}", "tl.reduce({0}, {d}, _prod)", "{0} * {1}", "jnp.prod({0}, {d})"),
        Monoid("max", _extreme(-1), np.maximum, _reducer("max"), True, OPS["max"].triton,
               "tl.max({0}, {d})", OPS["max"].jnp, "jnp.max({0}, {d})"),
        Monoid("min", _extreme(1), np.minimum, _reducer("min"), True, OPS["min"].triton,
               "tl.min({0}, {d})", OPS["min"].jnp, "jnp.min({0}, {d})"),
        Monoid("any", lambda s: False, np.logical_or, _reducer("any"), True,
               "{0} | {1}", "(tl.max({0}.to(tl.int32), {d}) != 0)",
               "{0} | {1}", "jnp.any({0}, {d})"),
        Monoid("all", lambda s: True, np.logical_and, _reducer("all"), True,
               "{0} & {1}", "(tl.min({0}.to(tl.int32), {d}) != 0)",
               "{0} & {1}", "jnp.all({0}, {d})"),
        Monoid("argmax", _extreme(-1), _no_combine, _arg(1), True,
               "", "tl.argmax({0}, {d})", "", "jnp.argmax({0}, {d})"),
        Monoid("argmin", _extreme(1), _no_combine, _arg(-1), True,
               "", "tl.argmin({0}, {d})", "", "jnp.argmin({0}, {d})"),
    )
}  # fmt: skip
