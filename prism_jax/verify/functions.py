"""Functions in the normal form: exponentials, logarithms, choices, comparisons, opaque functions.

Each maker takes polynomials and gives a polynomial; `MAKERS` rebuilds atoms after substitution.
Axioms, beside those of `algebra`:

    exp(where(c, a, -inf)) = [c] exp(a)            extended reals
    exp([c] a) = [c] (exp(a) - 1) + 1              a finite
    log(a b) = log(a) + log(b), log(1 / b) = -log(b)                a > 0
    (a b)^x = a^x b^x for a, b >= 0; a^x = exp(x log a) for a > 0
    where(c, a, b) = [c] a + (1 - [c]) b           a, b finite
    f(-x) = -f(x) for odd f, f(-x) = f(x) for even f
    a <= b = not (b < a) for integers; a < b = (a - b < 0) for finite reals

>>> from prism_jax.verify.algebra import minus, scale, times

>>> from prism_jax.verify.terms import element
>>> s, m = element("s", ()), element("m", ())
>>> a = times(exponential(minus(s, m)), exponential(m))
>>> a.key == exponential(s).key
True
>>> logarithm(times(exponential(scale(m, 2)), exponential(s))).key == minus(s, scale(m, -2)).key
True
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from prism_jax.ir.nodes import INTEGERS, Axis
from prism_jax.verify.algebra import (
    absolute,
    content,
    is_infinite,
    leading,
    minus,
    plus,
    power,
    scale,
    times,
)
from prism_jax.verify.extremes import direction, extreme, flattened
from prism_jax.verify.signs import (
    atom_nonnegative,
    infinities,
    may_be_infinite,
    may_vanish,
    nonnegative,
    strictly_positive,
)
from prism_jax.verify.terms import (
    INFINITY,
    UNIT,
    ZERO,
    Atom,
    Field,
    Mono,
    Poly,
    Unproven,
    constant,
    number,
    of,
    single,
    sole_atom,
)

ODD = ("sin", "tan", "erf", "cbrt", "sign")
EVEN = ("cos",)
_LN2 = Atom("log 2", ("",))


def ln2() -> Poly:
    """The natural logarithm of 2."""
    return of(_LN2)


def infinity(sign: int) -> Poly:
    """+inf or -inf; only choices, maxima and comparisons may contain one."""
    return scale(of(INFINITY), sign)


def nan() -> Poly:
    """NaN: like an infinity, only the other branch of a choice."""
    return of(Atom("infinity", ("nan",)))


def exponential(poly: Poly) -> Poly:
    """exp(poly), as a product of powers of exponentials of monomials."""
    if is_infinite(poly):
        return ZERO if direction(poly) < 0 else poly
    parts: list[Poly] = []
    for mono, c in poly.terms:
        atom = mono.factors[0][0] if len(mono.factors) == 1 and mono.factors[0][1] == 1 else None
        if atom is not None and atom.kind == "masked" and _sign(atom) * c < 0:
            condition, body = _poly(atom.fields[0]), _poly(atom.fields[1])
            parts += [indicator(condition), exponential(scale(body, c))]
        elif atom is not None and atom.kind == "log":
            if c.denominator == 1:
                may_vanish(atom)
            parts.append(power(_poly(atom.fields[0]), c))
        elif may_be_infinite(mono):
            raise Unproven("an exponential of a value that a mask makes infinite")
        elif chosen := [a for a, _ in mono.factors if a.kind == "indicator"]:
            inside = Mono(tuple(f for f in mono.factors if f[0] is not chosen[0]))
            there = minus(exponential(Poly(((inside, c),))), UNIT)
            parts.append(plus(times(of(chosen[0]), there), UNIT))
        else:
            parts.append(of(Atom("exp", (mono,)), c))
    return times(*parts)


def raised(base: Poly, exponent: Poly) -> Poly:
    """base ** exponent for an exponent that is no number: a power of every nonnegative factor of
    one product; of what is surely positive, exp(exponent log(base)).
    """
    term = single(base)
    if infinities(base) or infinities(exponent) or not nonnegative(base):
        return function("pow", "None", base, exponent)
    if term is not None and len(term[0].factors) + (term[1] != 1) > 1:
        parts = [number(term[1]), *(of(a, e) for a, e in term[0].factors)]
        return times(*(raised(p, exponent) for p in parts if constant(p) != 1))
    if strictly_positive(base):
        return exponential(times(exponent, logarithm(base)))
    return function("pow", "None", base, exponent)


def _sign(atom: Atom) -> int:
    sign = atom.fields[2]
    assert isinstance(sign, int)
    return sign


def _poly(field: Field) -> Poly:
    assert isinstance(field, Poly)
    return field


def logarithm(poly: Poly) -> Poly:
    """log(poly), with positive factors split off."""
    if not poly.terms:
        return infinity(-1)
    if is_infinite(poly):
        return poly
    c, common, rest = content(poly, True)
    if not single(poly) and strictly_positive(rest) and (common.factors or c < 0):
        return plus(of(Atom("log", (rest,))), logarithm(Poly(((common, c),))))
    c, common, rest = content(poly, False)
    term, sign = single(rest), 1
    outside = common
    if term is not None:  # one product: split off what is positive
        inside = [(a, e) for a, e in term[0].factors if not _positive(a, e)]
        outside = Mono((*common.factors, *((a, e) for a, e in term[0].factors if _positive(a, e))))
        rest = Poly(((Mono(tuple(inside)), term[1]),))
        if inside and inside[0][1] < 0:  # log(1 / x) = -log(x), whatever the sign of x
            sign, rest = -1, Poly(((Mono(tuple((a, -e) for a, e in inside)), 1 / term[1]),))
    parts = [_log_of(a, e) for a, e in outside.factors]
    if c != 1:
        parts.append(of(Atom("log", (number(c),))))
    if constant(rest) != 1:
        parts.append(scale(of(Atom("log", (rest,))), sign))
    return plus(*parts) if parts else ZERO


def _positive(atom: Atom, exponent: Fraction) -> bool:
    return atom_nonnegative(atom) or exponent.denominator % 2 == 0


def _log_of(atom: Atom, exponent: Fraction) -> Poly:
    if atom.kind == "exp":
        inside = atom.fields[0]
        assert isinstance(inside, Mono)
        return Poly(((inside, exponent),))
    return scale(of(Atom("log", (of(atom),))), exponent)


def indicator(condition: Poly) -> Poly:
    """1 where the condition holds, else 0. Of a condition and its negation one is written as 1 -
    [..].
    """
    value = constant(condition)
    if value is not None:
        return number(value)
    atom = sole_atom(condition)
    if atom is not None and atom.kind == "fn":
        name, args = atom.fields[0], atom.fields[2]
        assert isinstance(args, tuple)
        flips = name in ("not", "ne") or (name == "le" and len(args) == 1)
        if flips or (name == "nonnegative" and _offset(_poly(args[0])) < 0):
            return minus(UNIT, indicator(negation(condition)))
    return of(Atom("indicator", (condition,)))


def _offset(poly: Poly) -> Fraction:
    return next((c for m, c in poly.terms if not m.factors), Fraction(0))


def masked(condition: Poly, body: Poly, sign: int) -> Poly:
    """body where the condition holds, else an infinity of that sign (0: NaN)."""
    known = constant(condition)
    if known is not None:
        return body if known else infinity(sign) if sign else nan()
    if is_infinite(body):
        raise Unproven("a choice between infinities")
    inner = sole_atom(body)
    if inner is not None and inner.kind == "masked" and inner.fields[2] == sign:
        return masked(
            connective("and", condition, _poly(inner.fields[0])), _poly(inner.fields[1]), sign
        )
    lead = abs(leading(body)) if body.terms else Fraction(1)
    return scale(of(Atom("masked", (condition, scale(body, 1 / lead), sign))), lead)


def choose(condition: Poly, a: Poly, b: Poly) -> Poly:
    """where(condition, a, b)."""
    known = constant(condition)
    if known is not None:
        return a if known else b
    if a == b:
        return a
    if is_infinite(a) and is_infinite(b):
        raise Unproven("a choice between infinities")
    if is_infinite(b):
        return masked(condition, a, direction(b))
    if is_infinite(a):
        return masked(negation(condition), b, direction(a))
    if infinities(a) or infinities(b):  # [c] a + (1 - [c]) b would have 0 times an infinity
        return of(Atom("fn", ("choose", "", (condition, a, b))))
    return plus(times(indicator(condition), minus(a, b)), b)


def negation(condition: Poly) -> Poly:
    """not condition."""
    known = constant(condition)
    if known is not None:
        return number(1 - known)
    atom = sole_atom(condition)
    if atom is not None and atom.kind == "fn":
        name, parameter, args = atom.fields[0], atom.fields[1], atom.fields[2]
        assert isinstance(args, tuple)
        if name == "not":
            return _poly(args[0])
        if name == "nonnegative":  # of an integer
            return function("nonnegative", parameter, minus(number(-1), _poly(args[0])))
        if name == "le" and len(args) == 1:
            return function("lt", parameter, scale(_poly(args[0]), -1))
        if name in ("eq", "ne"):
            other = "ne" if name == "eq" else "eq"
            return function(other, parameter, *(_poly(a) for a in args))
    return of(Atom("fn", ("not", "", (condition,))))


def compare(op: str, a: Poly, b: Poly, sort: str) -> Poly:
    """A comparison of values of a sort, as a function of the difference where that is exact.

    Integers wrap: i < j is i - j < 0 only where both are known to be small, as axes' values are.
    """
    if op in ("gt", "ge"):
        return compare({"gt": "lt", "ge": "le"}[op], b, a, sort)
    if sort in INTEGERS:
        if not (in_range(a, sort) and in_range(b, sort)):
            return _compare_wrapping(op, a, b, sort)
        if op in ("lt", "le"):
            gap = minus(b, a) if op == "le" else minus(minus(b, a), UNIT)
            return function("nonnegative", "", gap)
    elif infinities(a) or infinities(b):
        return function(op, "", a, b)
    gap = minus(a, b)
    known = constant(gap)
    if known is not None:
        truth = {"lt": known < 0, "le": known <= 0, "eq": known == 0, "ne": known != 0}[op]
        return number(int(truth))
    lead = leading(gap)
    return function(op, "", scale(gap, 1 / (abs(lead) if op in ("lt", "le") else lead)))


def _compare_wrapping(op: str, a: Poly, b: Poly, sort: str) -> Poly:
    if op == "le":
        return negation(_compare_wrapping("lt", b, a, sort))
    if a == b:
        return number(int(op == "eq"))
    args = (a, b) if op == "lt" else sorted((a, b), key=lambda p: p.key)
    return function(op, sort, *args)


def in_range(poly: Poly, sort: str) -> bool:
    """Whether an integer term, a sum of products of axes, surely is a number of the sort."""
    low = high = Fraction(0)
    for mono, c in poly.terms:
        most = Fraction(1)
        for atom, e in mono.factors:
            axis = atom.fields[0]
            if atom.kind != "axis" or not isinstance(axis, Axis) or e < 0 or e.denominator != 1:
                return False
            # A symbolic size is a number of shares or tiles: below 2^31, and no more is known.
            size = axis.size if isinstance(axis.size, int) else 1 << 31
            most *= Fraction(max(size - 1, 0)) ** int(e)
        low, high = low + min(Fraction(0), c * most), high + max(Fraction(0), c * most)
        if not mono.factors:
            low, high = low + max(Fraction(0), c), high + min(Fraction(0), c)
    bits = int(sort.removeprefix("u").removeprefix("int"))
    least, most = (0, 1 << bits) if sort.startswith("u") else (-(1 << bits - 1), 1 << bits - 1)
    return least <= low and high < most


def wrapped(poly: Poly, sort: str) -> Poly:
    """An integer term as the number that it is: where sums may wrap, an opaque function of it."""
    atom = sole_atom(poly)
    if in_range(poly, sort) or (atom is not None and atom.kind != "axis"):
        return poly
    return function("wrap", sort, poly)


def connective(op: str, *args: Poly) -> Poly:
    """and, or, xor of booleans."""
    flat = {p.key: p for a in args for p in flattened(op, a)} if op != "xor" else {}
    polys = [flat[k] for k in sorted(flat)] or sorted(args, key=lambda p: p.key)
    if op in ("and", "or"):
        absorbing, neutral = (
            (Fraction(0), Fraction(1)) if op == "and" else (Fraction(1), Fraction(0))
        )
        if any(constant(p) == absorbing for p in polys):
            return number(absorbing)
        polys = [p for p in polys if constant(p) != neutral] or [number(neutral)]
        if len(polys) == 1:
            return polys[0]
    return of(Atom("fn", (op, "", tuple(polys))))


def function(op: Any, parameter: Any, *args: Poly) -> Poly:
    """An opaque function; odd and even ones normalise the sign of their argument."""
    if op in ("max", "min"):
        result = args[0]
        for arg in args[1:]:
            result = extreme(op, result, arg, str(parameter))
        return result
    if op == "choose":
        return choose(*args)
    if op in ("and", "or", "xor") and parameter == "":
        return connective(op, *args)
    if op in ("lt", "le", "eq", "ne", "nonnegative") and len(args) == 1:
        known = constant(args[0])
        if known is not None:
            truth = {"lt": known < 0, "le": known <= 0, "eq": known == 0, "ne": known != 0}
            return number(int(truth.get(op, known >= 0)))
    if op in ODD + EVEN and len(args) == 1 and args[0].terms and args[0].terms[0][1] < 0:
        flipped = function(op, parameter, scale(args[0], -1))
        return scale(flipped, -1) if op in ODD else flipped
    return of(Atom("fn", (op, parameter, tuple(args))))


def _remake(op: Field, parameter: Field, args: Field) -> Poly:
    assert isinstance(args, tuple)
    return function(op, parameter, *(_poly(a) for a in args))


MAKERS: dict[str, Callable[..., Poly]] = {
    "exp": exponential,
    "log": logarithm,
    "masked": masked,
    "indicator": indicator,
    "abs": absolute,
    "group": lambda poly: poly,
    "fn": _remake,
}
