"""Pointwise operators as Triton text, and the helper functions that the source may need.

In: an operator node and the texts of its arguments. Out: the text, and the names of the helpers it
calls. The operator table's own column serves most rows; the rows here need more than one
expression to be exact: integer division as XLA defines it, saturating casts, functions whose short
formula loses digits.

Helpers use nothing that the interpreter lacks: no libdevice, no inline assembly.
"""

from __future__ import annotations

import math

import numpy as np

from prism_jax.ir.nodes import FLOATS, REAL, Const, Pointwise
from prism_jax.ir.ops import OPS

__all__ = ["HELPERS", "REDUCERS", "literal", "needed", "operation", "tl_dtype", "typed_literal"]

HELPERS: dict[str, str] = {
    "max_nan": '''
@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
''',
    "min_nan": '''
@triton.jit
def min_nan(a, b):
    """The smaller of two numbers; NaN if one is."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
''',
    "round_tf32": '''
@triton.jit
def round_tf32(x):
    """x plus half a unit of its tenth bit. A matrix unit cuts off what follows that bit, which
    alone would be an error twice as large and always towards zero. NaN and infinities stay.
    """
    unit = (x.to(tl.int32, bitcast=True) & -0x800000).to(tl.float32, bitcast=True)
    return x + unit * (1.0 / 2048)
''',
    "multiply": '''
@triton.jit
def multiply(a, b):
    """The product of two numbers."""
    return a * b
''',
    "div_integer": '''
@triton.jit
def div_integer(a, b):
    """Division towards zero; by zero it gives -1."""
    one = b * 0 + 1
    return tl.where(b == 0, b - 1, a // tl.where(b == 0, one, b))
''',
    "rem_integer": '''
@triton.jit
def rem_integer(a, b):
    """The remainder of division towards zero; by zero it gives `a`."""
    one = b * 0 + 1
    return tl.where(b == 0, a, a % tl.where(b == 0, one, b))
''',
    "expm1": '''
@triton.jit
def expm1(x):
    """exp(x) - 1 without cancellation near 0."""
    near = x * (1.0 / 40320.0) + 1.0 / 5040.0
    near = ((near * x + 1.0 / 720.0) * x + 1.0 / 120.0) * x + 1.0 / 24.0
    near = ((near * x + 1.0 / 6.0) * x + 0.5) * x
    return tl.where(tl.abs(x) < 0.5, x + near * x, tl.exp(x) - 1.0)
''',
    "log1p": '''
@triton.jit
def log1p(x):
    """log(1 + x) without cancellation near 0: twice the inverse hyperbolic tangent of x / (2 +
    x).
    """
    s = x / (2.0 + x)
    z = s * s
    near = ((z / 15.0 + 1.0 / 13.0) * z + 1.0 / 11.0) * z + 1.0 / 9.0
    near = ((near * z + 1.0 / 7.0) * z + 0.2) * z + 1.0 / 3.0
    return tl.where(tl.abs(x) < 0.5, 2.0 * (s + s * z * near), tl.log(1.0 + x))
''',
    "tanh": '''
@triton.jit
def tanh(x):
    """The hyperbolic tangent: a polynomial near 0, from exp beyond."""
    z = x * x
    near = (-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2
    near = ((near * z + 1.33314422036e-1) * z - 3.33332819422e-1) * z
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.625, x + near * x, tl.where(x < 0, -far, far))
''',
    "expm1_wide": '''
@triton.jit
def expm1_wide(x):
    """exp(x) - 1 in double precision (Kahan)."""
    u = tl.exp(x)
    near = (u - 1.0) * x / tl.log(tl.where(u == 1.0, 2.0, u))
    return tl.where(u == 1.0, x, tl.where(tl.abs(x) < 1.0, near, u - 1.0))
''',
    "log1p_wide": '''
@triton.jit
def log1p_wide(x):
    """log(1 + x) in double precision (Kahan)."""
    u = 1.0 + x
    near = tl.log(u) * x / tl.where(u == 1.0, 1.0, u - 1.0)
    return tl.where(u == 1.0, x, tl.where(tl.abs(x) < 1.0, near, tl.log(u)))
''',
    "tanh_wide": '''
@triton.jit
def tanh_wide(x):
    """The hyperbolic tangent in double precision."""
    e = expm1_wide(2.0 * tl.abs(x))
    far = tl.where(tl.abs(x) > 20.0, 1.0, e / (e + 2.0))
    return tl.where(x < 0, -far, tl.where(x == 0.0, x, far))
''',
    "erfc": '''
@triton.jit
def erfc(x):
    """1 - erf(x) without cancellation; exp(-x * x) in two parts, so that x * x is exact."""
    a = tl.abs(x)
    t = 1.0 / (1.0 + 0.5 * a)
    p = t * 0.17087277 - 0.82215223
    p = (((p * t + 1.48851587) * t - 1.13520398) * t + 0.27886807) * t - 0.18628806
    p = (((p * t + 0.09678418) * t + 0.37409196) * t + 1.00002368) * t - 1.26551223
    high = (a.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
    tail = t * tl.exp(-high * high) * tl.exp(p - (a - high) * (a + high))
    far = tl.where(x < 0, 2.0 - tail, tail)
    return tl.where(a < 0.25, 1.0 - tl.erf(x), far)
''',
    "erfc_wide": '''
@triton.jit
def erfc_wide(x):
    """1 - erf(x) in double precision."""
    return 1.0 - tl.erf(x)
''',
    "power": '''
@triton.jit
def power(x, y):
    """x to the power y, with the signs and special values of IEEE 754."""
    size = tl.exp2(y * tl.log2(tl.abs(x)))
    whole = tl.floor(y) == y
    odd = whole & (tl.floor(y * 0.5) * 2.0 != y) & (tl.abs(y) < 16777216.0)
    signed = tl.where(odd, -size, size)
    below = tl.where(whole, signed, tl.where(x == float("-inf"), size, float("nan")))
    result = tl.where(x < 0, below, size)
    return tl.where(y == 0, 1.0, tl.where(x == 1.0, 1.0, result))
''',
    "sign": '''
@triton.jit
def sign(x):
    """-1, 0 or 1; NaN and signed zeros stay."""
    one = x * 0 + 1
    return tl.where(x > 0, one, tl.where(x < 0, -one, x))
''',
    "reduce_precision": '''
@triton.jit
def reduce_precision(x, exponent: tl.constexpr, mantissa: tl.constexpr):
    """x rounded to nearest even with so many bits; too large becomes infinite, too small zero."""
    top: tl.constexpr = (2.0 - 2.0 ** (-mantissa)) * 2.0 ** (2 ** (exponent - 1) - 1)
    tiny: tl.constexpr = 2.0 ** (2 - 2 ** (exponent - 1))
    bits = x.to(tl.int32, bitcast=True)
    if mantissa < 23:
        last = (bits >> (23 - mantissa)) & 1
        bits = (bits + last + ((1 << (22 - mantissa)) - 1)) & -(1 << (23 - mantissa))
    y = bits.to(tl.float32, bitcast=True)
    sign = tl.where(x.to(tl.int32, bitcast=True) < 0, -1.0, 1.0)
    if exponent < 8:
        y = tl.where(tl.abs(y) > top, sign * float("inf"), y)
        y = tl.where(tl.abs(y) < tiny, sign * 0.0, y)
    return tl.where((x != x) | (tl.abs(x) == float("inf")), x, y)
''',
    "reduce_precision_wide": '''
@triton.jit
def reduce_precision_wide(x, exponent: tl.constexpr, mantissa: tl.constexpr):
    """x (double) rounded to nearest even with so many bits; out of range as in reduce_precision."""
    top: tl.constexpr = (2.0 - 2.0 ** (-mantissa)) * 2.0 ** (2 ** (exponent - 1) - 1)
    tiny: tl.constexpr = 2.0 ** (2 - 2 ** (exponent - 1))
    bits = x.to(tl.int64, bitcast=True)
    if mantissa < 52:
        last = (bits >> (52 - mantissa)) & 1
        bits = (bits + last + ((1 << (51 - mantissa)) - 1)) & -(1 << (52 - mantissa))
    y = bits.to(tl.float64, bitcast=True)
    one = x * 0 + 1
    sign = tl.where(x.to(tl.int64, bitcast=True) < 0, -one, one)
    if exponent < 11:
        y = tl.where(tl.abs(y) > top, sign * float("inf"), y)
        y = tl.where(tl.abs(y) < tiny, sign * 0.0, y)
    return tl.where((x != x) | (tl.abs(x) == float("inf")), x, y)
''',
}

_NEEDS = {"tanh_wide": ("expm1_wide",)}

REDUCERS = {"max": "max_nan", "min": "min_nan", "prod": "multiply"}
"""Helpers that `tl.reduce` takes for each monoid that has no exact reduction of its own."""


def tl_dtype(dtype: str) -> str:
    """The dtype's name in `triton.language`."""
    special = {"bool": "int1", "float8_e4m3fn": "float8e4nv", "float8_e5m2": "float8e5"}
    return f"tl.{special.get(dtype, dtype)}"


def needed(names: set[str]) -> list[str]:
    """The helpers by name with those that they call, in an order in which they can be defined."""
    every = names | {inner for name in names for inner in _NEEDS.get(name, ())}
    return [name for name in HELPERS if name in every]


def literal(value: float | int | bool) -> str:
    """A number as Triton text."""
    if isinstance(value, float) and (math.isinf(value) or math.isnan(value)):
        return f'float("{value}")'
    return repr(value)


def typed_literal(node: Const, compute: str) -> str:
    """A constant with a dtype of its own."""
    dtype = compute if node.sort == REAL else node.sort
    return f"tl.full((), {literal(node.value)}, {tl_dtype(dtype)})"


def operation(
    node: Pointwise, texts: list[str], compute: str, helpers: set[str]
) -> tuple[str, str]:
    """The text of an operator, and the dtype of its value. Adds the helpers it calls to
    `helpers`.
    """
    sort = node.sort
    dtype = compute if sort == REAL else sort

    def call(name: str, *arguments: str) -> str:
        wide = name + "_wide" if compute == "float64" and name + "_wide" in HELPERS else name
        helpers.add(wide)
        return f"{wide}({', '.join(arguments)})"

    match node.op:
        case "div" | "rem" if sort != REAL:
            return call(f"{node.op}_integer", *texts), dtype
        case "expm1" | "log1p" | "tanh" | "erfc" | "sign":
            return call(node.op, *texts), dtype
        case "pow":
            return call("power", *texts), dtype
        case "integer_pow":
            return _power(texts[0], node.parameter), dtype
        case "reduce_precision":
            assert isinstance(node.parameter, tuple)
            return call("reduce_precision", texts[0], *map(str, node.parameter)), dtype
        case "max" | "min" if sort == "bool":
            return f"{texts[0]} {'|' if node.op == 'max' else '&'} {texts[1]}", dtype
        case "not" if sort.startswith("uint"):
            return f"{texts[0]} ^ {np.iinfo(sort).max}", dtype
        case "shift_left" | "shift_right_logical" | "shift_right_arithmetic":
            return _shift(node.op, sort, *texts), dtype
        case "cast":
            return _cast(texts[0], node.args[0].sort, str(node.parameter), compute)
        case _:
            return OPS[node.op].triton.format(*texts, p=node.parameter, f=f"tl.{compute}"), dtype


def _power(x: str, exponent: object) -> str:
    assert isinstance(exponent, int)
    if exponent == 0:
        return f"{x} * 0 + 1"
    product = " * ".join([x] * abs(exponent)) if abs(exponent) <= 4 else _squares(x, abs(exponent))
    return product if exponent > 0 else f"1.0 / ({product})"


def _squares(x: str, exponent: int) -> str:
    """Repeated squaring as nested text; exponents are small."""
    half = _squares(x, exponent // 2) if exponent > 3 else " * ".join([x] * (exponent // 2))
    text = f"({half}) * ({half})"
    return f"{text} * {x}" if exponent % 2 else text


def _shift(name: str, sort: str, x: str, count: str) -> str:
    """Shifts by more than the width give what XLA gives: zeros, or copies of the sign."""
    bits = np.iinfo(sort).bits
    inside = f"({count} >= 0) & ({count} < {bits})"
    safe = f"({count} & {bits - 1})"
    if name == "shift_left":
        return f"tl.where({inside}, {x} << {safe}, 0)"
    if name == "shift_right_arithmetic" and sort.startswith("uint"):
        x, safe = (f"{v}.to(tl.int{bits}, bitcast=True)" for v in (x, safe))
        signed = f"tl.where({inside}, {x} >> {safe}, {x} >> {bits - 1})"
        return f"{signed}.to(tl.{sort}, bitcast=True)"
    if name == "shift_right_arithmetic":
        return f"tl.where({inside}, {x} >> {safe}, {x} >> {bits - 1})"
    if sort.startswith("uint"):
        return f"tl.where({inside}, {x} >> {safe}, 0)"
    unsigned = f"({x}.to(tl.uint{bits}, bitcast=True) >> {safe}.to(tl.uint{bits}, bitcast=True))"
    return f"tl.where({inside}, {unsigned}.to(tl.int{bits}, bitcast=True), 0)"


def _cast(x: str, source: str, target: str, compute: str) -> tuple[str, str]:
    """An opaque cast. Reals to integers truncate and saturate, NaN becomes 0, as in XLA."""
    if target == "bool":
        return f"{x} != 0", "bool"
    if target in FLOATS:
        return f"{x}.to({tl_dtype(target)})", target
    if source == REAL:
        info = np.iinfo(target)
        low, high = float(info.min), float(info.max)
        inside = f"tl.where(({x} > {low}) & ({x} < {high}), {x}, 0.0).to(tl.{target})"
        outside = f"tl.where({x} >= {high}, {info.max}, {info.min})"
        text = f"tl.where(({x} >= {high}) | ({x} <= {low}), {outside}.to(tl.{target}), {inside})"
        return text, target
    return f"{x}.to(tl.{target})", target
