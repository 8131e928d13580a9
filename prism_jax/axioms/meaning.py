"""What a pattern means on concrete arrays, in float64 and in a pair of finite fields: the ground
under the evidence.

In: a pattern and an `Assignment` of arrays to its names. Out: an array over all axes of the trial
(size 1 where an axis is absent). This shares no code with the e-graph: axioms are tested against
their meaning, not against the engine that uses them.

Finite fields, as in Mirage: numbers live in Z_p and, for exponents, in Z_q with q dividing p - 1;
exp(x) is w ** x with w of order q, and has no value in Z_q (so one exponential per path). p = 2 q +
1 makes p = 3 mod 4: "non-negative" is "a square", and x ** ((p + 1) / 4) is the root that is itself
a square, so the laws of roots keep their sign conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from prism_jax.axioms import pattern as pt
from prism_jax.ir.ops import OPS

Array = np.ndarray[Any, Any]
FIELDS = ((1000667, 500333), (1000919, 500459))


class Outside(Exception):
    """The pattern has no meaning in this domain; the text says which operator."""


class Undefined(Exception):
    """Division by zero in a field: the trial does not count."""


@dataclass(frozen=True)
class Assignment:
    """Values of names: terms are arrays over all axes of the trial; segments lists of (array,
    coefficient or exponent); axis sets tuples of dimensions; numbers fractions. `sums` are the
    segments that stand in sums.
    """

    terms: Mapping[str, Any]
    segments: Mapping[str, list[tuple[Any, Fraction]]]
    axes: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, Fraction]
    shape: tuple[int, ...]
    sums: frozenset[str]


class Domain:
    """Arithmetic of one kind of numbers. `scale` is the largest magnitude met, for judging
    rounding.
    """

    def __init__(self) -> None:
        self.scale = 1.0

    def number(self, value: Fraction) -> Any:
        """A scalar."""
        raise NotImplementedError

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        raise NotImplementedError

    def mul(self, a: Any, b: Any) -> Any:
        """a * b."""
        raise NotImplementedError

    def power(self, x: Any, e: Fraction) -> Any:
        """x ** e."""
        raise NotImplementedError

    def op(self, name: str, args: list[Any]) -> Any:
        """A pointwise operator."""
        raise NotImplementedError

    def reduce(self, monoid: str, x: Any, dims: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        """A reduction over dimensions, kept with size 1."""
        raise NotImplementedError


def evaluate(pattern: pt.Pattern, values: Assignment, domain: Domain) -> Any:
    """The value of a pattern. Raises Outside or Undefined."""

    def number(n: pt.Num) -> Fraction:
        result = n.value
        for name in n.names:
            if name.startswith("size:"):
                for dim in values.axes[name[5:]]:
                    result *= values.shape[dim]
            else:
                result *= values.numbers[name]
        return result

    def total(items: list[tuple[Any, Fraction]]) -> Any:
        result = domain.number(Fraction(0))
        for x, c in items:
            result = domain.add(result, x if c == 1 else domain.mul(domain.number(c), x))
        return result

    def product(items: list[tuple[Any, Fraction]]) -> Any:
        result = domain.number(Fraction(1))
        for x, e in items:
            result = domain.mul(result, domain.power(x, e))
        return result

    def term(p: pt.Pattern) -> Any:
        match p:
            case pt.Var(name):
                return values.terms[name]
            case pt.Seg(name):
                return (total if name in values.sums else product)(values.segments[name])
            case pt.Num():
                return domain.number(number(p))
            case pt.Sum(items):
                return total([(term(x), number(c)) for c, x in items])
            case pt.Prod(items):
                return product([(term(x), number(e)) for x, e in items])
            case pt.Op(name, args):
                return domain.op(name, [term(x) for x in args])
            case pt.Red(monoid, names, body):
                dims = tuple(dim for name in names for dim in values.axes[name])
                return domain.reduce(monoid, term(body), dims, values.shape)

    return term(pattern)


class Float64(Domain):
    """NumPy float64; overflow and invalid operations give what IEEE says."""

    def _met(self, x: Any) -> Any:
        finite = (
            np.abs(x[np.isfinite(x)])
            if isinstance(x, np.ndarray) and x.dtype == float
            else np.zeros(0)
        )
        if finite.size:
            self.scale = max(self.scale, float(finite.max()))
        return x

    def number(self, value: Fraction) -> Any:
        """See `Domain`."""
        return np.float64(float(value))

    def add(self, a: Any, b: Any) -> Any:
        """See `Domain`."""
        with np.errstate(all="ignore"):
            return self._met(np.add(a, b))

    def mul(self, a: Any, b: Any) -> Any:
        """See `Domain`."""
        with np.errstate(all="ignore"):
            return self._met(np.multiply(a, b))

    def power(self, x: Any, e: Fraction) -> Any:
        """Roots are those of the table: NaN below zero."""
        with np.errstate(all="ignore"):
            if e.denominator == 2:
                x, e = np.sqrt(x), Fraction(e.numerator)
            return self._met(np.power(x, float(e)))

    def op(self, name: str, args: list[Any]) -> Any:
        """See `Domain`."""
        return self._met(np.asarray(OPS[name].f64(None, *args)))

    def reduce(self, monoid: str, x: Any, dims: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        """See `Domain`."""
        functions: dict[str, Callable[..., Any]] = {
            "sum": np.sum,
            "prod": np.prod,
            "max": np.max,
            "min": np.min,
        }
        functions |= {"any": np.any, "all": np.all}
        with np.errstate(all="ignore"):
            if monoid in ("argmax", "argmin"):
                (dim,) = dims
                pick = np.argmax if monoid == "argmax" else np.argmin
                return np.asarray(pick(_full(x, dims, shape), axis=dim, keepdims=True), float)
            return self._met(
                np.asarray(functions[monoid](_full(x, dims, shape), axis=dims, keepdims=True))
            )


def _full(x: Any, dims: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """A value stretched along the dimensions that are reduced."""
    x = np.asarray(x)
    if x.ndim == 0:
        x = x.reshape((1,) * len(shape))
    return np.broadcast_to(
        x, tuple(shape[d] if d in dims else x.shape[d] for d in range(len(shape)))
    )


@dataclass(frozen=True)
class Residue:
    """A number in Z_p and, unless an exponential made it, in Z_q."""

    p: Array
    q: Array | None


class Field(Domain):
    """Arithmetic in a pair of fields."""

    def __init__(self, p: int, q: int) -> None:
        super().__init__()
        self.p, self.q = p, q
        self.root = 4  # 2 squared generates the subgroup of squares, of order q

    def number(self, value: Fraction) -> Residue:
        """See `Domain`."""
        parts = [
            np.asarray(value.numerator * pow(value.denominator, -1, m) % m, np.int64)
            for m in (self.p, self.q)
        ]
        return Residue(parts[0], parts[1])

    def _both(self, f: Callable[[Array, Array, int], Array], a: Residue, b: Residue) -> Residue:
        q = None if a.q is None or b.q is None else f(a.q, b.q, self.q)
        return Residue(f(a.p, b.p, self.p), q)

    def add(self, a: Any, b: Any) -> Residue:
        """See `Domain`."""
        return self._both(lambda x, y, m: (x + y) % m, a, b)

    def mul(self, a: Any, b: Any) -> Residue:
        """See `Domain`."""
        return self._both(lambda x, y, m: x * y % m, a, b)

    def power(self, x: Any, e: Fraction) -> Residue:
        """See `Domain`; a root exists in Z_p only."""
        if e.denominator == 2:
            x = Residue(_power(x.p, (self.p + 1) // 4, self.p), None)
            e = Fraction(e.numerator)
        if e.denominator != 1:
            raise Outside(f"the power {e}")
        if e < 0 and ((x.p == 0).any() or (x.q is not None and (x.q == 0).any())):
            raise Undefined
        n = e.numerator
        q = None if x.q is None else _power(x.q, n % (self.q - 1), self.q)
        return Residue(_power(x.p, n % (self.p - 1), self.p), q)

    def op(self, name: str, args: list[Any]) -> Residue:
        """See `Domain`."""
        one = Fraction(1)
        match name:
            case "sub":
                return self.add(args[0], self.mul(self.number(-one), args[1]))
            case "neg":
                return self.mul(self.number(-one), args[0])
            case "div":
                return self.mul(args[0], self.power(args[1], -one))
            case "sqrt" | "rsqrt":
                return self.power(args[0], one / 2 if name == "sqrt" else -one / 2)
            case "exp" | "exp2":
                if args[0].q is None:
                    raise Outside("an exponential of an exponential")
                return Residue(_power(np.asarray(self.root), args[0].q, self.p), None)
            case "where":
                cond = args[0]
                q = (
                    None
                    if args[1].q is None or args[2].q is None
                    else np.where(cond, args[1].q, args[2].q)
                )
                return Residue(np.where(cond, args[1].p, args[2].p), q)
            case _:
                raise Outside(name)

    def reduce(self, monoid: str, x: Any, dims: tuple[int, ...], shape: tuple[int, ...]) -> Residue:
        """See `Domain`."""
        if monoid not in ("sum", "prod"):
            raise Outside(f"{monoid} (an order is no field operation)")

        def fold(a: Array | None, m: int) -> Array | None:
            if a is None:
                return None
            a = _full(a, dims, shape)
            if monoid == "sum":
                return np.sum(a, axis=dims, keepdims=True) % m
            for dim in dims:
                result = np.ones_like(np.take(a, [0], dim))
                for n in range(a.shape[dim]):
                    result = result * np.take(a, [n], dim) % m
                a = result
            return a

        p = fold(x.p, self.p)
        assert p is not None
        return Residue(p, fold(x.q, self.q))


def _power(x: Array, e: Any, m: int) -> Array:
    """x ** e mod m, by squaring; e may be an array."""
    e = np.asarray(e, np.int64)
    x, e = np.broadcast_arrays(np.asarray(x, np.int64) % m, e)
    result, x, e = np.ones(x.shape, np.int64), x.copy(), e.copy()
    while e.any():
        result = np.where(e & 1, result * x % m, result)
        x, e = x * x % m, e >> 1
    return result
