"""Terms of the proof: polynomials over atoms, in a normal form.

A `Poly` is a sum of monomials with rational coefficients; a `Mono` is a product of atoms with
rational exponents; an `Atom` is what has no further algebra: an element of a tensor, exp of a
monomial, a sum over bound axes, a function of polynomials. Two terms that the axioms make equal
mostly have one normal form; `key` is a digest of it, so comparing is comparing keys.

The axioms that live here (others are in `binders` and `normal`):

    a b = b a, (a b) c = a (b c), a (b + c) = a b + a c      ring
    |a|^2 = a^2                                              absolute values
    a^x a^y = a^(x+y), (a b)^x = a^x b^x, (a^x)^y = a^(xy)   powers; fractional ones of nonnegatives
                                                             (`signs`: sqrt(x)^2 is not x otherwise)
    exp(a + b) = exp(a) exp(b), exp(c a) = exp(a)^c          exponentials
    log(a b) = log a + log b, log exp a = a                  logarithms, of positives

Numbers are exact: floats are rationals (`modular.rational`), roots of numbers are kept as powers
of primes.

>>> from prism_jax.verify.terms import element
>>> x, y = element("x", ()), element("y", ())
>>> minus(times(plus(x, y), plus(x, y)), plus(times(x, x), times(y, y))).key == times(
...     number(2), x, y).key
True
>>> squares = plus(times(x, x), times(y, y))
>>> power(power(squares, Fraction(1, 2)), Fraction(2)).key == squares.key
True
"""

from __future__ import annotations

from fractions import Fraction

from prism_jax.verify.signs import (
    atom_nonnegative,
    infinities,
    may_cancel,
    may_vanish,
    nonnegative,
    settle,
)
from prism_jax.verify.terms import (
    MOST_TERMS,
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
)

_MOST_POWER = 4


# ---- ring


def plus(*polys: Poly) -> Poly:
    """The sum."""
    some = [p for p in polys if p.terms]
    if len(some) == 1:
        return some[0]
    if any(is_infinite(p) for p in some):
        raise Unproven("arithmetic with an infinity")
    return settle(t for p in some for t in p.terms)


def scale(poly: Poly, factor: Fraction | int) -> Poly:
    """The polynomial times a number."""
    if factor == 1 or not poly.terms:
        return poly
    return Poly(tuple((m, c * factor) for m, c in poly.terms)) if factor else ZERO


def minus(a: Poly, b: Poly) -> Poly:
    """The difference."""
    return plus(a, scale(b, -1))


def times(*polys: Poly) -> Poly:
    """The product, expanded."""
    if not polys:
        return UNIT
    result = polys[0]
    for poly in polys[1:]:
        result = _times(result, poly)
    return result


def _times(a: Poly, b: Poly) -> Poly:
    for p, q in ((a, b), (b, a)):
        value = constant(p)
        if value is not None:
            if value == 0:
                for mono, _ in q.terms:
                    may_cancel(mono)
            return scale(q, value)
    if is_infinite(a) or is_infinite(b):
        raise Unproven("arithmetic with an infinity")
    if len(a.terms) * len(b.terms) > MOST_TERMS:
        raise Unproven(f"a product expands to more than {MOST_TERMS} terms")
    if len(a.terms) == len(b.terms) == 1:
        (m, c), (n, d) = a.terms[0], b.terms[0]
        return scale(product(m, n), c * d)
    for p, q in ((a, b), (b, a)):
        if len(q.terms) > 1 and infinities(p):
            raise Unproven("a value that a mask makes infinite does not distribute")
    parts = [(product(m, n), c * d) for m, c in a.terms for n, d in b.terms]
    return settle((m, c * d) for p, c in parts for m, d in p.terms)


def product(*monos: Mono, guarded: bool = True) -> Poly:
    """The product of monomials: one monomial, or more where whole powers of sums multiply out.

    `guarded=False` where what cancels is kept beside the product, so that nothing is lost.
    """
    powers: dict[Atom, Fraction] = {}
    roots: set[Atom] = set()
    for mono in monos:
        for atom, e in mono.factors:
            powers[atom] = powers.get(atom, Fraction(0)) + e
            if e.denominator != 1:
                roots.add(atom)
    open_: list[tuple[Atom, Fraction]] = []
    kept: list[tuple[Atom, Fraction]] = []
    even: list[tuple[Atom, Fraction]] = []  # |a|^2 = a^2
    coefficient = Fraction(1)
    for atom, e in powers.items():
        if guarded and atom in roots and e.denominator == 1:
            may_vanish(atom)
        if guarded and not e:
            may_cancel(Mono(((atom, Fraction(1)),)))
        if atom.kind in ("indicator", "member") and e > 0:
            kept.append((atom, Fraction(1)))  # idempotent
        elif atom.kind == "prime" and e.denominator == 1:
            coefficient *= Fraction(_int(atom.fields[0])) ** int(e)
        elif atom.kind == "group" and e > 0 and e.denominator == 1 and e <= _MOST_POWER:
            open_.append((atom, e))
        elif atom.kind == "abs" and e and e % 2 == 0:
            even.append((atom, e))
        elif e:
            kept.append((atom, e))
    mono = Mono(tuple(sorted(kept, key=lambda f: f[0].key)))
    result = Poly(((mono, coefficient),))
    for atom, e in open_:
        inside = atom.fields[0]
        assert isinstance(inside, Poly)
        for _ in range(int(e)):
            result = _times(result, inside)
    for atom, e in even:
        inside = atom.fields[0]
        assert isinstance(inside, Poly)
        result = _times(result, power(inside, e))
    return result


def _int(field: Field) -> int:
    assert isinstance(field, int)
    return field


def is_infinite(poly: Poly) -> bool:
    """Whether the polynomial is an infinity (nothing else may contain one)."""
    return any(a.kind == "infinity" for m, _ in poly.terms for a, _ in m.factors)


# ---- powers


def power(poly: Poly, exponent: Fraction) -> Poly:
    """poly ** exponent."""
    if exponent == 1:
        return poly
    if exponent == 0:
        return UNIT
    if not poly.terms:
        if exponent < 0:
            raise Unproven("a division by zero")
        return ZERO
    if is_infinite(poly):
        raise Unproven("arithmetic with an infinity")
    term = single(poly)
    if term is not None:
        return (
            times(number_power(term[1], exponent), _mono_power(term[0], exponent))
            if (term[1] > 0 or exponent.denominator == 1)
            else of(Atom("group", (poly,)), exponent)
        )
    whole = exponent.denominator == 1
    if whole and 0 < exponent <= _MOST_POWER:
        result = poly
        for _ in range(int(exponent) - 1):
            result = _times(result, poly)
        return result
    c, common, rest = content(poly, whole)
    outside = times(number_power(c, exponent), _mono_power(common, exponent))
    return times(outside, of(Atom("group", (rest,)), exponent))


def content(poly: Poly, signed: bool) -> tuple[Fraction, Mono, Poly]:
    """(c, m, rest) with poly = c m rest: what all terms share, and the denominators of any.

    `signed` allows a negative c and atoms of unknown sign in m.
    """
    powers = [m.powers for m, _ in poly.terms]
    shared: dict[Atom, Fraction] = {}
    for atom in {a for one in powers for a in one}:
        least = min(one.get(atom, Fraction(0)) for one in powers)
        if least and (signed or atom_nonnegative(atom)):
            shared[atom] = least
    common = Mono(tuple(sorted(shared.items(), key=lambda f: f[0].key)))
    inverse = Mono(tuple((a, -e) for a, e in common.factors))
    rest = collect(
        (m2, c * d) for m, c in poly.terms for m2, d in product(m, inverse, guarded=False).terms
    )
    c = leading(rest) if signed else abs(leading(rest))
    return c, common, scale(rest, 1 / c)


def leading(poly: Poly) -> Fraction:
    """A coefficient to divide by: the largest, with the sign that prevails.

    Its size does not depend on the names of axes, so that what is divided out of a term before and
    after bound axes are renamed is the same.
    """
    largest = max(abs(c) for _, c in poly.terms)
    total = sum((c for _, c in poly.terms), Fraction(0)) or poly.terms[0][1]
    return largest if total > 0 else -largest


def _mono_power(mono: Mono, exponent: Fraction) -> Poly:
    for atom, e in mono.factors:
        if e.denominator != 1 and (e * exponent).denominator == 1:
            may_vanish(atom)
    if exponent.denominator == 1:
        return product(Mono(tuple((a, e * exponent) for a, e in mono.factors)))
    result: list[Poly] = []
    unknown: list[tuple[Atom, Fraction]] = []
    for atom, e in mono.factors:
        if atom_nonnegative(atom) or e.denominator % 2 == 0:
            result.append(of(atom, e * exponent))
        elif e % 2 == 0:
            result.append(power(absolute(of(atom)), e * exponent))
        else:
            unknown.append((atom, e))
    if unknown:
        rest = Poly(((Mono(tuple(unknown)), Fraction(1)),))
        result.append(of(Atom("group", (rest,)), exponent))
    return times(*result)


def absolute(poly: Poly) -> Poly:
    """|poly|."""
    if nonnegative(poly):
        return poly
    term = single(poly)
    if term is None:
        lead = leading(poly)
        return scale(of(Atom("abs", (scale(poly, 1 / lead),))), abs(lead))
    mono, c = term
    parts = [
        of(a, e)
        if atom_nonnegative(a) or e % 2 == 0 or e.denominator % 2 == 0
        else of(Atom("abs", (of(a),)), e)
        for a, e in mono.factors
    ]
    return scale(times(*parts), abs(c))


def number_power(c: Fraction, exponent: Fraction) -> Poly:
    """A number's power: exact where the exponent is whole, else in powers of primes."""
    if exponent.denominator == 1:
        return number(c ** int(exponent))
    result = UNIT
    for prime, e in [*_factor(c.numerator), *((p, -e) for p, e in _factor(c.denominator))]:
        result = times(result, of(Atom("prime", (prime,)), e * exponent))
    return result


def _factor(n: int) -> list[tuple[int, int]]:
    """The small primes of n with exponents, and what is left of it as if it were a prime."""
    found: list[tuple[int, int]] = []
    p = 2
    while p * p <= n and p < 1000:
        e = 0
        while n % p == 0:
            n //= p
            e += 1
        if e:
            found.append((p, e))
        p += 1
    return [*found, (n, 1)] if n > 1 else found
