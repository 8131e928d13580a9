"""From nodes of the IR to the normal form of the proof.

In: a node, and what the tensors and accumulators it reads are equal to. Out: a `Poly`. Operators
are expressed by few: a - b = a + (-1) b, a / b = a b^-1, rsqrt x = x^(-1/2),
logistic x = (1 + exp(-x))^-1,
tanh x = 2 logistic(2 x) - 1, exp2 x = exp(x log 2), log1p x = log(1 + x), expm1 x = exp x - 1.
What has no algebra here is an opaque function of its arguments.

>>> from prism_jax.ir.nodes import Const, Pointwise, Tensor
>>> x = Load(Tensor("x", (), "float32"), ())
>>> once = Pointwise("div", (Pointwise("div", (Const(1.0), x)), x))
>>> twice = Pointwise("integer_pow", (x,), -2)
>>> Normal().poly(once).key == Normal().poly(twice).key
True
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from prism_jax.ir.nodes import (
    FLOATS,
    REAL,
    Axis,
    Carried,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
    Tensor,
)
from prism_jax.ir.program import walk
from prism_jax.verify.algebra import absolute, minus, plus, power, scale, times
from prism_jax.verify.binders import reduction, rename, substitute
from prism_jax.verify.constants import Spelled
from prism_jax.verify.extremes import extreme
from prism_jax.verify.functions import (
    choose,
    compare,
    connective,
    exponential,
    function,
    in_range,
    indicator,
    infinity,
    ln2,
    logarithm,
    nan,
    negation,
    raised,
    wrapped,
)
from prism_jax.verify.modular import log2_multiple, rational
from prism_jax.verify.terms import (
    UNIT,
    Field,
    Illegal,
    Poly,
    Unproven,
    axis_value,
    constant,
    element,
    number,
)

FINITE = "values that are compared with an infinity to see whether a part is live are finite"


@dataclass(frozen=True)
class Definition:
    """What a tensor is: `value` over one formal axis per digit of each dimension.

    `layout` gives, per dimension, the digits (coefficient, formal axis) of its index.
    """

    layout: tuple[tuple[tuple[int, Axis], ...], ...]
    value: Poly

    def at(self, indices: list[Poly], tensor: Tensor) -> Poly:
        """The element at these indices."""
        axes: dict[Axis, Poly] = {}
        for digits, index in zip(self.layout, indices, strict=True):
            if len(digits) == 1:
                axes[digits[0][1]] = index
            else:
                axes |= _digits(digits, index, tensor)
        return substitute(self.value, axes)


def _digits(digits: tuple[tuple[int, Axis], ...], index: Poly, tensor: Tensor) -> dict[Axis, Poly]:
    """The axes of an index that is written like the store's: one axis for each digit."""
    unlike = Unproven(f"{tensor.name} is read by an index unlike the one it is written by")
    found: dict[int, Poly] = {}
    sizes: dict[int, Field] = {}
    for mono, c in index.terms:
        if len(mono.factors) != 1 or mono.factors[0][0].kind != "axis" or c.denominator != 1:
            raise unlike
        axis = mono.factors[0][0].fields[0]
        assert isinstance(axis, Axis)
        found[int(c)], sizes[int(c)] = Poly(((mono, Fraction(1)),)), axis.size
    if sizes != {c: axis.size for c, axis in digits}:  # a longer digit would carry into the next
        raise unlike
    return {axis: found[c] for c, axis in digits}


@dataclass
class Normal:
    """Normalises nodes. `carried` are values of accumulators by (name, phase), as definitions."""

    tensors: dict[str, Definition] = field(default_factory=dict[str, Definition])
    carried: dict[tuple[str, str], Definition] = field(
        default_factory=dict[tuple[str, str], Definition]
    )
    inputs: frozenset[Tensor] | None = None
    """The tensors that may be read without having been written; None: any."""
    spelled: Spelled = field(default_factory=dict[float, Fraction])
    """What constants stand for (`constants`)."""
    assumptions: set[str] = field(default_factory=set[str])
    _memo: dict[Node, Poly] = field(default_factory=dict[Node, Poly])

    def forget(self) -> None:
        """Must be called when `carried` changes."""
        self._memo.clear()

    def poly(self, root: Node) -> Poly:
        """The normal form of a node."""
        for node in walk([root]):
            if node not in self._memo:
                self._memo[node] = self._poly(node)
        return self._memo[root]

    def index(self, index: Index) -> Poly:
        """The normal form of an index."""
        parts = [number(index.offset)]
        for term, c in index.terms:
            value = (
                axis_value(term) if isinstance(term, Axis) else wrapped(self.poly(term), term.sort)
            )
            parts.append(scale(value, c))
        return plus(*parts)

    def _poly(self, node: Node) -> Poly:
        match node:
            case Const():
                return _const(node, self.spelled)
            case Iota():
                value = axis_value(node.axis)
                if node.sort == REAL or in_range(value, node.sort):
                    return value
                return function("cast", f"int64 -> {node.sort}", value)
            case Load():
                return self._load(node)
            case Carried():
                return self._carried(node)
            case Reduce():
                return self._reduce(node)
            case Pointwise():
                alive = self._alive(node)
                return alive if alive is not None else self._pointwise(node)
            case _:
                raise Unproven(f"a node of kind {type(node).__name__}")

    def _load(self, node: Load) -> Poly:
        indices = [self.index(i) for i in node.index]
        made = self.tensors.get(node.tensor.name)
        if made is None and self.inputs is not None and node.tensor not in self.inputs:
            raise Illegal(f"{node.tensor.name} is read before it is written")
        fill = self._memo[node.fill] if node.fill is not None else number(0)
        if made is not None:
            value = made.at(indices, node.tensor)
            if not node.guard:
                return value
            inside: list[Poly] = []
            for guard in node.guard:
                where = self.index(guard.index)
                inside.append(compare("le", number(guard.low), where, "int64"))
                inside.append(compare("lt", where, number(guard.high), "int64"))
            return choose(connective("and", *inside), value, fill)
        if not node.guard:
            return element(node.tensor.name, indices)
        guards: tuple[Field, ...] = tuple((self.index(g.index), g.low, g.high) for g in node.guard)
        return element(node.tensor.name, indices, guards, fill)

    def _carried(self, node: Carried) -> Poly:
        found = self.carried.get((node.accumulator, node.phase))
        if found is None:
            raise Unproven(
                f"{node.accumulator} is read in phase {node.phase}, where it has no value"
            )
        own = [digits[0][1] for digits in found.layout]
        if [a.name for a in own] != [a.name for a in node.axes]:
            raise Unproven(f"{node.accumulator} is read with other axes than it has")
        return rename(found.value, dict(zip(own, node.axes, strict=True)))

    def _reduce(self, node: Reduce) -> Poly:
        body = self._memo[node.body]
        return reduction(node.monoid, node.axes, body, node.body.sort, node.index_sort)

    def _alive(self, node: Pointwise) -> Poly | None:
        """where(part != -inf, t, neutral) is t: a dead part contributes nothing."""
        if node.op != "where":
            return None
        test, value, other = node.args
        if not (isinstance(test, Pointwise) and test.op == "ne" and isinstance(other, Const)):
            return None
        part, bound = test.args
        handed = isinstance(part, Load) and part.tensor.name in self.tensors
        if not handed and not isinstance(part, Carried):
            return None
        if not (isinstance(bound, Const) and math.isinf(float(bound.value))):
            return None
        if other.value != 0 and other.value != bound.value:
            return None
        self.assumptions.add(FINITE)
        return self._memo[value]

    def _pointwise(self, node: Pointwise) -> Poly:
        args = [self._memo[a] for a in node.args]
        real = node.args[0].sort == REAL
        if node.op in _RINGS:
            return _ring(node.op, args)
        if node.op in ("lt", "le", "gt", "ge", "eq", "ne"):
            return compare(node.op, args[0], args[1], node.args[0].sort)
        if node.op == "where":
            if node.sort == "bool":
                return function("where", "", *args)
            return choose(*args)
        if node.op in ("max", "min"):
            return extreme(node.op, args[0], args[1], "" if real else node.sort)
        if node.op in ("and", "or", "xor", "not") and node.sort == "bool":
            return negation(args[0]) if node.op == "not" else connective(node.op, *args)
        if node.op == "cast":
            return _cast(node, args[0])
        if real:
            return _real(node, args)
        return function(node.op, f"{node.args[-1].sort} {node.parameter!r}", *args)


_RINGS = ("add", "sub", "mul", "neg")


def _const(node: Const, spelled: Spelled) -> Poly:
    if node.sort != REAL:
        return number(int(node.value))
    value = float(node.value)
    if math.isnan(value):
        return nan()
    if math.isinf(value):
        return infinity(1 if value > 0 else -1)
    if value in spelled:
        return number(spelled[value])
    found = log2_multiple(value)
    if found is not None:
        return scale(power(ln2(), Fraction(found[1])), found[0])
    return number(rational(value))


def _ring(op: str, args: list[Poly]) -> Poly:
    match op:
        case "add":
            return plus(*args)
        case "sub":
            return minus(args[0], args[1])
        case "mul":
            return times(*args)
        case _:
            return scale(args[0], -1)


def _cast(node: Pointwise, arg: Poly) -> Poly:
    source, target = node.args[0].sort, str(node.parameter)
    if source == "bool":
        return indicator(arg)
    if source == REAL:
        return function("cast", target, arg)
    fits = in_range(arg, source) and (target in FLOATS or in_range(arg, target))
    return arg if fits or target == source else function("cast", f"{source} -> {target}", arg)


def _real(node: Pointwise, args: list[Poly]) -> Poly:
    x = args[0]
    match node.op:
        case "div":
            return times(x, power(args[1], Fraction(-1)))
        case "integer_pow" if isinstance(node.parameter, int):
            return power(x, Fraction(node.parameter))
        case "sqrt":
            return power(x, Fraction(1, 2))
        case "rsqrt":
            return power(x, Fraction(-1, 2))
        case "pow":
            exponent = constant(args[1])
            return power(x, exponent) if exponent is not None else raised(x, args[1])
        case "exp":
            return exponential(x)
        case "exp2":
            return exponential(times(x, ln2()))
        case "expm1":
            return minus(exponential(x), UNIT)
        case "log":
            return logarithm(x)
        case "log1p":
            return logarithm(plus(UNIT, x))
        case "logistic":
            return _logistic(x)
        case "tanh":
            return minus(scale(_logistic(scale(x, 2)), 2), UNIT)
        case "abs":
            return absolute(x)
        case _:
            return function(node.op, repr(node.parameter), *args)


def _logistic(x: Poly) -> Poly:
    return power(plus(UNIT, exponential(scale(x, -1))), Fraction(-1))
