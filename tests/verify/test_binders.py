"""Bound axes of the proof's terms: renaming, substitution, and what they must not change."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import pytest

from prism_jax.ir.nodes import Axis, Load, Node, Store, Tensor, at
from prism_jax.ir.sgraph import LibraryCall, SGraph
from prism_jax.verify import prove
from prism_jax.verify.algebra import plus, power, scale, times
from prism_jax.verify.binders import body_of, reduce_over, substitute, sum_over
from prism_jax.verify.extremes import extreme
from prism_jax.verify.functions import choose, compare, exponential
from prism_jax.verify.terms import Atom, Field, Mono, Poly, Unproven, axis_value, element, number
from tests.verify.build import op, out, program, red, t, total

Values = Mapping[Axis, int]
Number = Callable[[Values], float]
FREE = (Axis("i", 3), Axis("j", 3), Axis("v", 2))
REDUCED = {"sum": sum, "max": max, "min": min, "prod": math.prod}


# ---- terms as numbers


def entry(name: str, *index: float) -> float:
    """An element of an endless random tensor; those with names in s have both signs."""
    text = repr((name, *(round(i) for i in index)))
    share = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
    return 2 * share - 1 if name.startswith("s") else 0.3 + share


def value(field: Field, at: Values) -> float:
    """What a term is where its free axes have these values."""
    if isinstance(field, Poly):
        return math.fsum(float(c) * value(m, at) for m, c in field.terms)
    if isinstance(field, Mono):
        whole = [(a, int(e) if e.denominator == 1 else float(e)) for a, e in field.factors]
        return math.prod(value(a, at) ** e for a, e in whole)
    assert isinstance(field, Atom)
    fields = field.fields
    if field.bound:
        places = itertools.product(*(range(int(a.size)) for a in field.bound))
        body = body_of(field)
        parts = [value(body, {**at, **dict(zip(field.bound, p, strict=True))}) for p in places]
        monoid = "sum" if field.kind == "sum" else str(fields[0])
        if monoid.startswith("arg"):
            return parts.index(REDUCED[monoid.removeprefix("arg")](parts))
        return REDUCED[monoid](parts)
    match field.kind, fields:
        case "axis", (Axis() as axis,):
            return at[axis]
        case "element", (str(name), tuple(index)):
            return entry(name, *(value(i, at) for i in index))
        case "exp", (inside,):
            return math.exp(value(inside, at))
        case "group", (inside,):
            return value(inside, at)
        case "abs", (inside,):
            return abs(value(inside, at))
        case "indicator", (condition,):
            return value(condition, at)
        case "prime", (int(prime),):
            return prime
        case "fn", (str(name), _, tuple(args)):
            return FUNCTIONS[name](*(value(a, at) for a in args))
        case _:
            raise AssertionError(field.kind)


FUNCTIONS: dict[str, Callable[..., float]] = {
    "max": max,
    "min": min,
    "nonnegative": lambda x: float(x >= 0),
}


# ---- random terms, twice: in normal form, and as functions of their axes


@dataclass
class Grower:
    random: random.Random
    count: int = 0

    def axis(self, size: int) -> Axis:
        self.count += 1
        return Axis(f"k{self.count}", size)

    def term(self, depth: int, axes: tuple[Axis, ...]) -> tuple[Poly, Number]:
        draw = self.random
        kind = draw.random()
        if depth == 0 or kind < 0.12:
            name = draw.choice(("a", "b", "sx", "sy"))
            index = tuple(draw.choice(axes) for _ in range(draw.choice((1, 2, 2, 3))))
            poly = element(name, [axis_value(a) for a in index])
            return poly, lambda at: entry(name, *(at[a] for a in index))
        if kind < 0.52:
            return self.reduced(depth, axes)
        body, number_of = self.term(depth - 1, axes)
        if kind < 0.62:
            e = draw.choice((Fraction(1), Fraction(2), Fraction(1, 2), Fraction(-1)))
            poly = power(exponential(scale(body, Fraction(1, 4))), e)
            return poly, lambda at: math.exp(number_of(at) / 4) ** float(e)
        if kind < 0.68:
            whole = draw.choice((2, 3))
            return power(body, Fraction(whole)), lambda at: number_of(at) ** whole
        if kind < 0.72:
            e = draw.choice((Fraction(-1), Fraction(1, 2), Fraction(-1, 2)))
            poly = power(plus(power(body, Fraction(2)), number(1)), e)
            return poly, lambda at: (number_of(at) ** 2 + 1) ** float(e)
        other, second = self.term(depth - 1, axes)
        if kind < 0.8:
            return plus(body, other), lambda at: number_of(at) + second(at)
        if kind < 0.9:
            return times(body, other), lambda at: number_of(at) * second(at)
        if kind < 0.94:
            return extreme("max", body, other), lambda at: max(number_of(at), second(at))
        i, j = draw.choice(axes), draw.choice(axes)
        condition = compare("le", axis_value(i), axis_value(j), "int32")
        return (
            choose(condition, body, other),
            lambda at: number_of(at) if at[i] <= at[j] else second(at),
        )

    def reduced(self, depth: int, axes: tuple[Axis, ...]) -> tuple[Poly, Number]:
        draw = self.random
        monoid = draw.choice(("sum", "sum", "max", "max", "min", "prod"))
        new = tuple(self.axis(draw.choice((2, 2, 3))) for _ in range(draw.choice((1, 1, 2))))
        body, inside = self.term(depth - 1, (*axes, *new, *new))
        poly = sum_over(new, body) if monoid == "sum" else reduce_over(monoid, new, body)
        places = list(itertools.product(*(range(int(a.size)) for a in new)))

        def reduced(at: Values) -> float:
            parts = [inside({**at, **dict(zip(new, p, strict=True))}) for p in places]
            return REDUCED[monoid](parts)

        return poly, reduced

    def index(self) -> Poly:
        """What an axis may be replaced by: other axes, numbers, places of maxima."""
        draw = self.random
        kind, one = draw.random(), draw.choice(FREE)
        if kind < 0.4:
            return axis_value(one)
        if kind < 0.6:
            return plus(axis_value(one), number(1))
        if kind < 0.7:
            return number(draw.randrange(3))
        m, n = self.axis(3), self.axis(2)
        body = element("x", [axis_value(m), axis_value(one)])
        if kind < 0.85:
            inner = element("y", [axis_value(n), axis_value(one)])
            body = sum_over((n,), times(element("x", [axis_value(m), axis_value(n)]), inner))
        return reduce_over("argmax", (m,), body, "int32")


def moderate(right: Number, at: Values) -> float | None:
    """The number, unless it is too large to be compared."""
    try:
        return found if abs(found := right(at)) < 1e9 else None
    except OverflowError:
        return None


def close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * (1 + abs(a) + abs(b))


def test_normal_forms_and_substitutions_are_the_terms_that_they_stand_for() -> None:
    compared = 0
    for seed in range(1500):
        grower = Grower(random.Random(seed))
        try:
            poly, right = grower.term(grower.random.randrange(2, 6), FREE)
        except Unproven:
            continue
        at = {a: grower.random.randrange(int(a.size)) for a in FREE}
        expected = moderate(right, at)
        if expected is None:
            continue
        assert close(value(poly, at), expected), seed
        changed = grower.random.sample(FREE, grower.random.choice((1, 2, 3)))
        axes = {a: grower.index() for a in changed}
        there = {**at, **{a: round(value(p, at)) for a, p in axes.items()}}
        expected = moderate(right, there)
        if expected is None:
            continue
        assert close(value(substitute(poly, axes), at), expected), seed
        compared += 1
    assert compared > 1300


# ---- what was wrong once, as programs


K, L, V, B, M = Axis("k", 3), Axis("l", 3), Axis("v", 5), Axis("b", 2), Axis("m", 5)


@pytest.mark.parametrize("monoid", ["max", "min"])
def test_a_sum_of_maxima_is_not_minus_itself_under_any_names(monoid: str) -> None:
    def summed(k: Axis, j: Axis) -> Node:
        return total(red(monoid, t("x", j, k), j), k)

    right = program("p", out(summed(Axis("k", 4), Axis("j", 3))))
    for k, j in itertools.permutations("abcdefgh", 2):
        same = summed(Axis(k, 4), Axis(j, 3))
        assert prove(right, program("p", out(same))).passed, (k, j)
        assert not prove(right, program("p", out(op("neg", same)))).passed, (k, j)


def scores(first: Axis, place: Axis | Node) -> Node:
    """The sum over l of a[first, l, place]."""
    return total(Load(Tensor("a", (3, 3, 5), "float32"), (at(first), at(L), at(place))), L)


def call(name: str, store: Store) -> LibraryCall:
    return LibraryCall(name, "xla", (store,))


def test_an_index_that_is_a_maximum_s_place_leaves_bound_axes_apart() -> None:
    best = out(red("argmax", t("x", M, B), M), B, name="best", dtype="int32")
    made = out(red("max", scores(K, V), K), V, name="made")
    read = out(Load(made.tensor, (at(Load(best.tensor, (at(B),))),)), B)
    inputs = (Tensor("a", (3, 3, 5), "float32"), Tensor("x", (5, 2), "float32"))
    calls = (call("one", best), call("two", made), call("three", read))
    graph = SGraph("g", inputs, calls, (read.tensor,))
    assert prove(program("p", out(red("max", scores(K, best.value), K), B)), graph).passed
    assert not prove(program("p", out(scores(L, best.value), B)), graph).passed
