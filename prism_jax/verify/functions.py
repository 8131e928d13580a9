"""Functions in the normal form: exponentials, logarithms, choices, comparisons, opaque functions.

Each maker takes polynomials and gives a polynomial; `MAKERS` rebuilds atoms after substitution.
Axioms, beside those of `algebra`:

    exp(where(c, a, -inf)) = [c] exp(a)            extended reals
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

from prism_jax.verify.algebra import (
    absolute,
    atom_nonnegative,
    content,
    is_infinite,
    leading,
    minus,
    plus,
    power,
    scale,
    times,
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
    collect,
    constant,
    number,
    of,
    single,
    sole_atom,
)

ODD = ("sin", "tan", "tanh", "erf", "cbrt", "sign")
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


def _direction(poly: Poly) -> int:
    """The sign of an infinity, 0 for NaN."""
    [(mono, c)] = poly.terms
    return 0 if mono.factors[0][0].fields[0] == "nan" else 1 if c > 0 else -1


def exponential(poly: Poly) -> Poly:
    """exp(poly), as a product of powers of exponentials of monomials."""
    if is_infinite(poly):
        return ZERO if _direction(poly) < 0 else poly
    parts: list[Poly] = []
    for mono, c in poly.terms:
        atom = mono.factors[0][0] if len(mono.factors) == 1 and mono.factors[0][1] == 1 else None
        if atom is not None and atom.kind == "masked" and _sign(atom) * c < 0:
            condition, body = _poly(atom.fields[0]), _poly(atom.fields[1])
            parts += [indicator(condition), exponential(scale(body, c))]
        elif atom is not None and atom.kind == "log":
            parts.append(power(_poly(atom.fields[0]), c))
        elif any(may_be_infinite(a) for a, _ in mono.factors):
            raise Unproven("an exponential of a value that a mask makes infinite")
        else:
            parts.append(of(Atom("exp", (mono,)), c))
    return times(*parts)


def may_be_infinite(atom: Atom) -> bool:
    """Whether a mask can make the value infinite: one masked element is enough.

    A maximum of masked elements is finite where one of them is not masked, which is assumed.
    """
    if atom.kind == "masked":
        return True
    if atom.kind == "sum":
        inside = atom.fields[0]
        return isinstance(inside, Mono) and any(may_be_infinite(a) for a, _ in inside.factors)
    if atom.kind == "reduce" and atom.fields[0] in ("max", "min"):
        sign = -1 if atom.fields[0] == "max" else 1
        body = _poly(atom.fields[1])
        choices = [(a, c) for m, c in body.terms for a, _ in m.factors if a.kind == "masked"]
        return any(_sign(a) * c * sign < 0 for a, c in choices)
    return False


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
    c, common, rest = content(poly, False)
    term = single(rest)
    outside = common
    if term is not None:  # one product: split off what is positive
        inside = [(a, e) for a, e in term[0].factors if not _positive(a, e)]
        outside = Mono((*common.factors, *((a, e) for a, e in term[0].factors if _positive(a, e))))
        rest = Poly(((Mono(tuple(inside)), term[1]),))
    parts = [_log_of(a, e) for a, e in outside.factors]
    if c != 1:
        parts.append(of(Atom("log", (number(c),))))
    if constant(rest) != 1:
        parts.append(of(Atom("log", (rest,))))
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
        if name in ("not", "ne", "le") or (name == "nonnegative" and _offset(_poly(args[0])) < 0):
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
        return masked(condition, a, _direction(b))
    if is_infinite(a):
        return masked(negation(condition), b, _direction(a))
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


def compare(op: str, a: Poly, b: Poly, integers: bool) -> Poly:
    """A comparison, as a function of the difference where both sides are finite."""
    if op in ("gt", "ge"):
        return compare({"gt": "lt", "ge": "le"}[op], b, a, integers)
    if is_infinite(a) or is_infinite(b):
        return of(Atom("fn", (op, "", (a, b))))
    if integers and op in ("lt", "le"):
        gap = minus(b, a) if op == "le" else minus(minus(b, a), UNIT)
        return function("nonnegative", "", gap)
    gap = minus(a, b)
    known = constant(gap)
    if known is not None:
        truth = {"lt": known < 0, "le": known <= 0, "eq": known == 0, "ne": known != 0}[op]
        return number(int(truth))
    lead = leading(gap)
    return function(op, "", scale(gap, 1 / (abs(lead) if op in ("lt", "le") else lead)))


def extreme(op: str, a: Poly, b: Poly) -> Poly:
    """max(a, b) or min(a, b): flattened, sorted, common terms taken out."""
    worst = -1 if op == "max" else 1
    for one, other in ((a, b), (b, a)):
        if is_infinite(one):
            return other if _direction(one) == worst else one
    args = {p.key: p for x in (a, b) for p in _flat(op, x)}
    if len(args) == 1:
        return a
    polys = [args[k] for k in sorted(args)]
    shared = set(polys[0].terms).intersection(*(p.terms for p in polys[1:]))
    common = collect(shared)
    inner = tuple(sorted((minus(p, common) for p in polys), key=lambda p: p.key))
    return plus(common, of(Atom("fn", (op, "", inner))))


def _flat(op: str, poly: Poly) -> list[Poly]:
    atom = sole_atom(poly)
    if atom is not None and atom.kind == "fn" and atom.fields[0] == op:
        args = atom.fields[2]
        assert isinstance(args, tuple)
        return [_poly(a) for a in args]
    return [poly]


def connective(op: str, *args: Poly) -> Poly:
    """and, or, xor of booleans."""
    flat = {p.key: p for a in args for p in _flat(op, a)} if op != "xor" else {}
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
            result = extreme(op, result, arg)
        return result
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
