"""What is known of a class: free axes, sort, range, sign, finiteness, constant, declared precision.

Facts hold over the reals *with infinities*, under one stated assumption: the program's inputs are
finite. They only get stronger when classes merge. `low` and `high` bound the value (closed);
`nonzero` and `finite` are proven, never guessed.

>>> exp = of_operator("exp", None, (Facts(high=0.0),), "real")
>>> (exp.low, exp.high, exp.finite)
(0.0, 1.0, True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from prism_jax.egraph.decisions import apply, extent
from prism_jax.ir.nodes import REAL, Axis, Parameter, Precision

INF = math.inf


@dataclass(frozen=True, slots=True)
class Facts:
    """See the module's text. `constant` is an exact finite number."""

    free: frozenset[Axis] = frozenset()
    sort: str = REAL
    low: float = -INF
    high: float = INF
    nonzero: bool = False
    finite: bool = False
    constant: Fraction | None = None
    precision: Precision | None = None

    @property
    def nonnegative(self) -> bool:
        """Proven >= 0 (NaN aside)."""
        return self.low >= 0

    @property
    def positive(self) -> bool:
        """Proven > 0."""
        return self.low > 0 or (self.low >= 0 and self.nonzero)

    def __str__(self) -> str:
        axes = ",".join(sorted(axis.name for axis in self.free))
        words = [f"[{axes}]", f"{self.low:g}..{self.high:g}"]
        words += ["nonzero"] * self.nonzero + ["finite"] * self.finite
        if self.sort != REAL:
            words.append(self.sort)
        return " ".join(words)


def constant(value: Fraction) -> Facts:
    """The facts of a number."""
    low = _float(value)
    return Facts(low=low, high=low, nonzero=value != 0, finite=True, constant=value)


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(INF, value)


def join(one: Facts, other: Facts) -> Facts:
    """What is known of a value that both describe."""
    if one == other:
        return one
    joined = Facts(
        one.free & other.free,
        one.sort,
        max(one.low, other.low),
        min(one.high, other.high),
        one.nonzero or other.nonzero,
        one.finite or other.finite,
        one.constant if one.constant is not None else other.constant,
        strictest(one.precision, other.precision),
    )
    return one if joined == one else joined


# ---- sums, products, reductions


def of_sum(c0: Fraction, terms: list[tuple[Facts, Fraction]]) -> Facts:
    """`c0 + sum(c * t)`."""
    low = high = _float(c0)
    for fact, c in terms:
        ends = (_times(_float(c), fact.low), _times(_float(c), fact.high))
        low, high = _lower(low, min(ends)), _upper(high, max(ends))
    free = _union([f for f, _ in terms])
    finite = all(f.finite for f, _ in terms)
    single = len(terms) == 1 and c0 == 0 and terms[0][1] != 0
    nonzero = low > 0 or high < 0 or (single and terms[0][0].nonzero)
    if low >= 0 and not nonzero:  # non-negative terms, one of them positive
        nonzero = c0 > 0 or any(c > 0 and f.positive for f, c in terms)
        nonzero = nonzero and c0 >= 0 and all((c > 0) == (f.low >= 0) for f, c in terms)
    if not terms:
        return constant(c0)
    return Facts(free, REAL, low, high, nonzero, finite)


def _times(a: float, b: float) -> float:
    for x, y in ((a, b), (b, a)):
        if x == 0:
            return 0.0
        if x in (INF, -INF):
            return x if y > 0 else 0.0 if y == 0 else -x
    return a * b


def _lower(a: float, b: float) -> float:
    return -INF if a == -INF or b == -INF else a + b


def _upper(a: float, b: float) -> float:
    return INF if a == INF or b == INF else a + b


def of_product(factors: list[tuple[Facts, Fraction]]) -> Facts:
    """`product(b ** e)`."""
    low = high = 1.0
    nonzero = finite = True
    for fact, e in factors:
        power = of_power(fact, e)
        ends = [_times(x, y) for x in (low, high) for y in (power.low, power.high)]
        low, high = min(ends), max(ends)
        nonzero, finite = nonzero and power.nonzero, finite and power.finite
    return Facts(_union([f for f, _ in factors]), REAL, low, high, nonzero, finite)


def of_power(base: Facts, e: Fraction) -> Facts:
    """`b ** e`; a negative power of a proven zero-free finite value is finite."""
    even = e.denominator == 1 and e.numerator % 2 == 0
    rooted = e.denominator > 1
    low, high = base.low, base.high
    if rooted:
        low = max(low, 0.0)
    if even:
        size = max(abs(low), abs(high))
        low, high = (0.0 if low <= 0 <= high else min(abs(low), abs(high))), size
    if e > 0:
        ends = _power(low, e), _power(high, e)
    elif low > 0 or high < 0:
        ends = _power(high, e), _power(low, e)
    elif low >= 0:
        ends = (_power(high, e), INF)
    else:
        ends = (-INF, INF)
    nonzero = base.nonzero if e > 0 else base.finite
    finite = base.finite and (e > 0 or base.nonzero) and (not rooted or base.nonnegative)
    return replace(
        base, low=min(ends), high=max(ends), nonzero=nonzero, finite=finite, constant=None
    )


def _power(x: float, e: Fraction) -> float:
    return apply(f"power {e}", lambda x: _raised(x, e), x)


def _raised(x: float, e: Fraction) -> float:
    if math.isinf(x):
        sign = -1 if x < 0 and e.numerator % 2 else 1
        return sign * (INF if e > 0 else 0.0)
    if x == 0:
        return 0.0 if e > 0 else INF
    try:
        return math.copysign(abs(x) ** float(e), x if e.numerator % 2 else 1.0)
    except OverflowError:
        return math.copysign(INF, x if e.numerator % 2 else 1.0)


def of_reduce(monoid: str, axes: tuple[Axis, ...], body: Facts, index_sort: str | None) -> Facts:
    """A reduction's facts without its precision."""
    free = body.free.difference(axes)
    if index_sort is not None:
        return Facts(free, index_sort)
    if body.sort != REAL:
        return Facts(free, body.sort)
    if monoid in ("max", "min"):
        return replace(body, free=free, constant=None, precision=None)
    if monoid == "sum":
        low = 0.0 if body.low >= 0 else -INF
        high = 0.0 if body.high <= 0 else INF
        if all(isinstance(axis.size, int) for axis in axes):
            low, high = _times(body.low, extent(axes)), _times(body.high, extent(axes))
        return Facts(free, REAL, low, high, body.positive, body.finite)
    low = 0.0 if body.low >= 0 else -INF
    return Facts(free, REAL, low, INF, body.nonzero and body.finite, body.finite)


# ---- operators

_BOUNDED = {
    "logistic": (0.0, 1.0), "tanh": (-1.0, 1.0), "erf": (-1.0, 1.0), "erfc": (0.0, 2.0),
    "sin": (-1.0, 1.0), "cos": (-1.0, 1.0), "sign": (-1.0, 1.0),
}  # fmt: skip


def _guard(function: str, x: float) -> float:
    return apply(function, lambda x: _value(function, x), x)


def _value(function: str, x: float) -> float:
    if function in ("floor", "ceil") and not math.isfinite(x):
        return x
    try:
        return float(getattr(math, function)(x))
    except OverflowError:
        return INF
    except ValueError:  # log of zero or below: no lower bound
        return -INF


def of_operator(name: str, parameter: Parameter, args: tuple[Facts, ...], sort: str) -> Facts:
    """A pointwise operator's facts; an operator without a line here is known by its axes and sort
    only.
    """
    free = _union(list(args))
    plain = Facts(free, sort)
    if sort != REAL:
        return plain
    first = args[0] if args else plain
    low, high = first.low, first.high
    if name in _BOUNDED:
        return Facts(free, REAL, *_BOUNDED[name], finite=True)
    if name in ("exp", "exp2"):
        grow = "exp" if name == "exp" else "exp2"
        low, high = _guard(grow, low), _guard(grow, high)
        return Facts(free, REAL, low, high, first.finite or low > 0, first.finite or high < INF)
    if name in ("log", "log1p", "expm1"):
        inside = {"log": first.positive, "log1p": low > -1, "expm1": True}[name]
        ends = _guard(name, low) if low > -INF or name == "expm1" else -INF, _guard(name, high)
        return Facts(free, REAL, *ends, finite=first.finite and inside)
    if name == "abs":
        top = max(abs(low), abs(high))
        bottom = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        return Facts(free, REAL, bottom, top, first.nonzero, first.finite)
    if name in ("floor", "ceil"):
        low, high = _guard(name, low), _guard(name, high)
        return Facts(free, REAL, low, high, finite=first.finite)
    if name in ("max", "min"):
        pick = max if name == "max" else min
        low, high = pick(a.low for a in args), pick(a.high for a in args)
        nonzero = low > 0 or high < 0 or all(a.nonzero for a in args)
        return Facts(free, REAL, low, high, nonzero, all(a.finite for a in args))
    if name == "where":
        return _choice(free, args[1], args[2])
    if name in ("cast", "reduce_precision"):
        return Facts(free, REAL, 0.0 if low >= 0 else -INF, 0.0 if high <= 0 else INF)
    return plain


def _choice(free: frozenset[Axis], one: Facts, other: Facts) -> Facts:
    return Facts(
        free,
        REAL,
        min(one.low, other.low),
        max(one.high, other.high),
        one.nonzero and other.nonzero,
        one.finite and other.finite,
    )


def _union(facts: list[Facts]) -> frozenset[Axis]:
    return frozenset[Axis]().union(*(f.free for f in facts))


# ---- precision records

_WIDTH = {
    "float8_e4m3fn": 0, "float8_e5m2": 0, "bfloat16": 1, "float16": 1, "float32": 2, "float64": 3,
}  # fmt: skip
_ALGORITHM = ("tf32", "default", "high", "highest")


def _wider(a: str, b: str) -> str:
    if a == b:
        return a
    wide, narrow = sorted((a, b), key=lambda d: (-_WIDTH.get(d, 0), d))
    # float16 and bfloat16 (or the two float8) hold none of each other: the next width holds both
    if _WIDTH.get(wide, 0) == _WIDTH.get(narrow, 0):
        return "float32" if _WIDTH.get(wide, 0) == 1 else "float16"
    return wide


def strictest(one: Precision | None, other: Precision | None) -> Precision | None:
    """The least precision that loses nothing of either record (design, section 4); None asks for
    nothing.
    """
    if one is None or other is None or one == other:
        return one or other
    rank = {name: place for place, name in enumerate(_ALGORITHM)}
    algorithm = max((one.algorithm, other.algorithm), key=lambda a: (rank.get(a, len(rank)), a))
    return Precision(
        _wider(one.operand, other.operand),
        _wider(one.accumulate, other.accumulate),
        _wider(one.result, other.result),
        algorithm,
    )
