"""Arithmetic, comparison, selection and casts: one operator per element."""

from __future__ import annotations

import math

from prism_jax.extract.flat import Equation
from prism_jax.extract.integers import cast, pointwise
from prism_jax.extract.rule import Point, Pull, rule
from prism_jax.ir.nodes import FLOATS, REAL, Const, Node, sort_of

SAME = {
    # primitive -> operator of the same meaning
    "add": "add", "add_any": "add", "sub": "sub", "div": "div", "rem": "rem", "neg": "neg",
    "abs": "abs", "sign": "sign", "max": "max", "min": "min", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "cbrt": "cbrt", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log",
    "log1p": "log1p", "logistic": "logistic", "sin": "sin", "cos": "cos", "tan": "tan",
    "tanh": "tanh", "erf": "erf", "erfc": "erfc", "floor": "floor", "ceil": "ceil",
    "is_finite": "is_finite", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt",
    "ge": "ge", "and": "and", "or": "or", "xor": "xor", "not": "not",
    "shift_left": "shift_left", "shift_right_arithmetic": "shift_right_arithmetic",
    "shift_right_logical": "shift_right_logical",
}  # fmt: skip

BOOLEAN = {"max": "or", "min": "and"}
"""Operators that have another name on booleans."""


def _arguments(e: Equation, p: Point) -> Pull:
    """Asks for the same element of every operand; numbers stand for arrays of themselves."""
    args: list[Node] = []
    for atom in e.inputs:
        args.append((yield p.ask(atom, p.index if atom.shape else ())))
    op = SAME[e.primitive]
    return pointwise(BOOLEAN.get(op, op) if args[0].sort == "bool" else op, tuple(args))


for _name in SAME:
    rule(_name, kind="pointwise")(_arguments)


def _plain_product(e: Equation) -> str | None:
    widened = e.outputs[0].dtype != e.inputs[0].dtype
    return "rounds its result to another dtype" if widened else None


@rule("mul", kind="pointwise", check=_plain_product)
def multiply(e: Equation, p: Point) -> Pull:
    """x * y."""
    left = yield p.ask(e.inputs[0], p.index if e.inputs[0].shape else ())
    right = yield p.ask(e.inputs[1], p.index if e.inputs[1].shape else ())
    return pointwise("and" if left.sort == "bool" else "mul", (left, right))


@rule("square", kind="pointwise")
def square(e: Equation, p: Point) -> Pull:
    """x * x, as the user could have written it."""
    x = yield p.ask(e.inputs[0], p.index)
    return pointwise("mul", (x, x))


@rule("log2", kind="pointwise")
def log2(e: Equation, p: Point) -> Pull:
    """log(x) / log(2), with the quotient of constants taken now."""
    x = yield p.ask(e.inputs[0], p.index)
    return pointwise("mul", (pointwise("log", (x,)), Const(1 / math.log(2))))


@rule("one_minus_square", kind="pointwise")
def one_minus_square(e: Equation, p: Point) -> Pull:
    """1 - x * x: the derivative of tanh."""
    x = yield p.ask(e.inputs[0], p.index)
    return pointwise("sub", (Const(1, x.sort), pointwise("mul", (x, x))))


@rule("integer_pow", kind="pointwise")
def integer_pow(e: Equation, p: Point) -> Pull:
    """A power with an exponent known now; small ones are products."""
    x = yield p.ask(e.inputs[0], p.index)
    exponent = int(e.params["y"])
    if exponent == 0:
        return Const(1, x.sort)
    if exponent == 1:
        return x
    if exponent == 2:
        return pointwise("mul", (x, x))
    if exponent == -1 and x.sort == REAL:
        return pointwise("div", (Const(1), x))
    return pointwise("integer_pow", (x,), exponent)


def _real_power(e: Equation) -> str | None:
    return None if e.outputs[0].dtype in FLOATS else "has no real base"


@rule("pow", kind="pointwise", check=_real_power)
def power(e: Equation, p: Point) -> Pull:
    """x ** y for real x, and y real or integer."""
    x = yield p.ask(e.inputs[0], p.index if e.inputs[0].shape else ())
    y = yield p.ask(e.inputs[1], p.index if e.inputs[1].shape else ())
    return pointwise("pow", (x, cast(y, e.outputs[0].dtype) if y.sort != REAL else y))


@rule("clamp", kind="pointwise")
def clamp(e: Equation, p: Point) -> Pull:
    """min(max(x, low), high), in this order, as XLA defines it."""
    low, x, high = e.inputs
    value = yield p.ask(x, p.index)
    least = yield p.ask(low, p.index if low.shape else ())
    greatest = yield p.ask(high, p.index if high.shape else ())
    return pointwise("min", (pointwise("max", (value, least)), greatest))


@rule("select_n", kind="pointwise")
def select_n(e: Equation, p: Point) -> Pull:
    """One of several cases by a boolean or an integer; one outside 0..n-1 takes the nearest."""
    which, *cases = e.inputs
    chosen = yield p.ask(which, p.index if which.shape else ())
    if isinstance(chosen, Const):  # what is not chosen need not be lifted
        number = min(max(int(chosen.value), 0), len(cases) - 1)
        return (yield p.ask(cases[number], p.index))
    result = yield p.ask(cases[-1], p.index)
    for number in reversed(range(len(cases) - 1)):
        case = yield p.ask(cases[number], p.index)
        if chosen.sort == "bool":
            return pointwise("where", (chosen, result, case))
        test = pointwise("lt", (chosen, Const(number + 1, chosen.sort)))
        result = pointwise("where", (test, case, result))
    return result


@rule("convert_element_type", kind="layout")
def convert(e: Equation, p: Point) -> Pull:
    """A cast: nothing at all over the reals, or an opaque operator (design, section 4)."""
    x = yield p.ask(e.inputs[0], p.index)
    old, new = e.inputs[0].dtype, e.outputs[0].dtype
    if old == new:
        return x
    if sort_of(old) == sort_of(new) == REAL:
        return x if p.binder.identity_cast(e) else pointwise("cast", (x,), new)
    return cast(x, new)


@rule("reduce_precision", kind="pointwise")
def reduce_precision(e: Equation, p: Point) -> Pull:
    """Deliberate rounding is opaque."""
    x = yield p.ask(e.inputs[0], p.index)
    bits = (int(e.params["exponent_bits"]), int(e.params["mantissa_bits"]))
    return pointwise("reduce_precision", (x,), bits)


@rule("copy", "stop_gradient")
def identity(e: Equation, p: Point) -> Pull:
    """The same values. (A derivative is taken of the original equations, never of the program.)"""
    return (yield p.ask(e.inputs[0], p.index))
