"""Terms of the proof: polynomials over atoms, in a normal form.

A `Poly` is a sum of monomials with rational coefficients; a `Mono` is a product of atoms with
rational exponents; an `Atom` is what has no further algebra: an element of a tensor, exp of a
monomial, a sum over bound axes, a function of polynomials. Two terms that the axioms make equal
mostly have one normal form; `key` is a digest of it, so comparing is comparing keys.

The axioms that live here (others are in `binders` and `normal`):

    a b = b a, (a b) c = a (b c), a (b + c) = a b + a c      ring
    a^x a^y = a^(x+y), (a b)^x = a^x b^x, (a^x)^y = a^(xy)   powers; fractional ones of nonnegatives
    exp(a + b) = exp(a) exp(b), exp(c a) = exp(a)^c          exponentials
    log(a b) = log a + log b, log exp a = a                  logarithms, of positives

Numbers are exact: floats are rationals (`residues.rational`), roots of numbers are kept as powers
of primes.

>>> x, y = element("x", ()), element("y", ())
>>> minus(times(plus(x, y), plus(x, y)), plus(times(x, x), times(y, y))).key == times(
...     number(2), x, y).key
True
>>> power(power(plus(x, y), Fraction(1, 2)), Fraction(2)).key == plus(x, y).key
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

from prism_jax.ir.nodes import Axis

MOST_TERMS = 3000
_MOST_POWER = 4


class Unproven(Exception):
    """The proof stops here; the message says at what."""


class Illegal(Unproven):
    """The sGraph breaks a rule (a race, an obligation of a cascade): it is refused, not only
    unproved.
    """


Field: TypeAlias = "str | int | Axis | Atom | Mono | Poly | tuple[Field, ...]"


def _text(field: Field) -> str:
    if isinstance(field, Atom | Mono | Poly):
        return field.key
    if isinstance(field, tuple):
        return "(" + ",".join(map(_text, field)) + ")"
    if isinstance(field, Axis):
        return f"{field.name}:{field.size}"
    return repr(field)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _axes(field: Field) -> frozenset[Axis]:
    if isinstance(field, Atom | Mono | Poly):
        return field.axes
    if isinstance(field, tuple):
        return frozenset[Axis]().union(*map(_axes, field))
    return frozenset((field,)) if isinstance(field, Axis) else frozenset()


@dataclass(frozen=True, eq=False)
class Atom:
    """`kind` decides what `fields` mean; `bound` are axes in the fields that are not free."""

    kind: str
    fields: tuple[Field, ...]
    bound: tuple[Axis, ...] = ()

    @cached_property
    def key(self) -> str:
        """A digest: equal for equal terms, in every process."""
        return _digest(f"{self.kind}{_text(self.fields)}{_text(self.bound)}")

    @cached_property
    def axes(self) -> frozenset[Axis]:
        """Free axes."""
        return _axes(self.fields) - frozenset(self.bound)

    @cached_property
    def height(self) -> int:
        """How deeply binders are nested in it."""
        return _height(self.fields) + bool(self.bound)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class Mono:
    """A product of powers of atoms, sorted by the atoms' keys; exponents are not zero."""

    factors: tuple[tuple[Atom, Fraction], ...] = ()

    @cached_property
    def key(self) -> str:
        """A digest."""
        return _digest("*".join(f"{a.key}^{e}" for a, e in self.factors))

    @cached_property
    def axes(self) -> frozenset[Axis]:
        """Free axes."""
        return frozenset[Axis]().union(*(a.axes for a, _ in self.factors))

    @property
    def powers(self) -> dict[Atom, Fraction]:
        """The exponents, by atom."""
        return dict(self.factors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mono) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class Poly:
    """A sum of monomials with coefficients that are not zero, sorted by the monomials' keys."""

    terms: tuple[tuple[Mono, Fraction], ...] = ()

    @cached_property
    def key(self) -> str:
        """A digest."""
        return _digest("+".join(f"{c}{m.key}" for m, c in self.terms))

    @cached_property
    def axes(self) -> frozenset[Axis]:
        """Free axes."""
        return frozenset[Axis]().union(*(m.axes for m, _ in self.terms))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _height(field: Field) -> int:
    if isinstance(field, Atom):
        return field.height
    if isinstance(field, Mono):
        return max((a.height for a, _ in field.factors), default=0)
    if isinstance(field, Poly):
        return max((_height(m) for m, _ in field.terms), default=0)
    if isinstance(field, tuple):
        return max(map(_height, field), default=0)
    return 0


ONE = Mono()
ZERO = Poly()
UNIT = Poly(((ONE, Fraction(1)),))
INFINITY = Atom("infinity", ("",))


# ---- making polynomials


def number(value: Fraction | int) -> Poly:
    """A constant."""
    return Poly(((ONE, Fraction(value)),)) if value else ZERO


def of(atom: Atom, exponent: Fraction | int = 1) -> Poly:
    """A power of an atom."""
    return Poly(((Mono(((atom, Fraction(exponent)),)), Fraction(1)),))


def element(name: str, index: Sequence[Field], *more: Field) -> Poly:
    """An element of a tensor; an index is a polynomial in axes' values."""
    return of(Atom("element", (name, tuple(index), *more)))


def axis_value(axis: Axis) -> Poly:
    """The value of an axis, as a number."""
    return of(Atom("axis", (axis,)))


def constant(poly: Poly) -> Fraction | None:
    """The number that the polynomial is, if it is one."""
    if not poly.terms:
        return Fraction(0)
    [(mono, c), *rest] = poly.terms
    return c if not rest and not mono.factors else None


def single(poly: Poly) -> tuple[Mono, Fraction] | None:
    """The only term, if there is one term."""
    return poly.terms[0] if len(poly.terms) == 1 else None


def sole_atom(poly: Poly) -> Atom | None:
    """The atom that the polynomial is, if it is one with coefficient and exponent 1."""
    if len(poly.terms) == 1 and poly.terms[0][1] == 1:
        factors = poly.terms[0][0].factors
        if len(factors) == 1 and factors[0][1] == 1:
            return factors[0][0]
    return None


def collect(terms: Iterable[tuple[Mono, Fraction]]) -> Poly:
    """The polynomial with these terms, like ones added."""
    found: dict[Mono, Fraction] = {}
    for mono, c in terms:
        found[mono] = found.get(mono, Fraction(0)) + c
    if len(found) > MOST_TERMS:
        raise Unproven(f"a term expands to more than {MOST_TERMS} products")
    return Poly(tuple(sorted(((m, c) for m, c in found.items() if c), key=lambda t: t[0].key)))


# ---- ring


def plus(*polys: Poly) -> Poly:
    """The sum."""
    some = [p for p in polys if p.terms]
    if len(some) == 1:
        return some[0]
    if any(is_infinite(p) for p in some):
        raise Unproven("arithmetic with an infinity")
    return collect(t for p in some for t in p.terms)


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
            if value == 0 and is_infinite(q):
                raise Unproven("arithmetic with an infinity")
            return scale(q, value)
    if is_infinite(a) or is_infinite(b):
        raise Unproven("arithmetic with an infinity")
    if len(a.terms) * len(b.terms) > MOST_TERMS:
        raise Unproven(f"a product expands to more than {MOST_TERMS} terms")
    if len(a.terms) == len(b.terms) == 1:
        (m, c), (n, d) = a.terms[0], b.terms[0]
        return scale(product(m, n), c * d)
    parts = [(product(m, n), c * d) for m, c in a.terms for n, d in b.terms]
    return collect((m, c * d) for p, c in parts for m, d in p.terms)


def product(*monos: Mono) -> Poly:
    """The product of monomials: one monomial, or more where whole powers of sums multiply out."""
    powers: dict[Atom, Fraction] = {}
    for mono in monos:
        for atom, e in mono.factors:
            powers[atom] = powers.get(atom, Fraction(0)) + e
    open_: list[tuple[Atom, Fraction]] = []
    kept: list[tuple[Atom, Fraction]] = []
    coefficient = Fraction(1)
    for atom, e in powers.items():
        if atom.kind in ("indicator", "member") and e > 0:
            kept.append((atom, Fraction(1)))  # idempotent
        elif atom.kind == "prime" and e.denominator == 1:
            coefficient *= Fraction(_int(atom.fields[0])) ** int(e)
        elif atom.kind == "group" and e > 0 and e.denominator == 1 and e <= _MOST_POWER:
            open_.append((atom, e))
        elif e:
            kept.append((atom, e))
    mono = Mono(tuple(sorted(kept, key=lambda f: f[0].key)))
    result = Poly(((mono, coefficient),))
    for atom, e in open_:
        inside = atom.fields[0]
        assert isinstance(inside, Poly)
        for _ in range(int(e)):
            result = _times(result, inside)
    return result


def _int(field: Field) -> int:
    assert isinstance(field, int)
    return field


def is_infinite(poly: Poly) -> bool:
    """Whether the polynomial is an infinity (nothing else may contain one)."""
    return any(a.kind == "infinity" for m, _ in poly.terms for a, _ in m.factors)


# ---- signs


def nonnegative(poly: Poly) -> bool:
    """Whether the value is >= 0 for real inputs, as far as the form shows."""
    return all(c > 0 and _factors_nonnegative(m) for m, c in poly.terms)


def _factors_nonnegative(mono: Mono) -> bool:
    return all(atom_nonnegative(a) or e % 2 == 0 or e.denominator % 2 == 0 for a, e in mono.factors)


def atom_nonnegative(atom: Atom) -> bool:
    """Whether an atom is >= 0 for real inputs."""
    if atom.kind in ("exp", "prime", "indicator", "member", "abs"):
        return True
    if atom.kind in ("sum", "group"):
        inside = atom.fields[0]
        return (
            _factors_nonnegative(inside)
            if isinstance(inside, Mono)
            else (isinstance(inside, Poly) and nonnegative(inside))
        )
    if atom.kind == "reduce" and atom.fields[0] in ("max", "min", "prod"):
        return isinstance(atom.fields[1], Poly) and nonnegative(atom.fields[1])
    return False


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
    rest = collect((m2, c * d) for m, c in poly.terms for m2, d in product(m, inverse).terms)
    c = rest.terms[0][1]
    c = c if signed else abs(c)
    return c, common, scale(rest, 1 / c)


def _mono_power(mono: Mono, exponent: Fraction) -> Poly:
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
        lead = poly.terms[0][1]
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
