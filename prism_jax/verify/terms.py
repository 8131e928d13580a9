"""The data of the proof's terms: atoms, monomials, polynomials, and how they are made.

A `Poly` is a sum of monomials with rational coefficients; a `Mono` is a product of atoms with
rational exponents; an `Atom` is what has no further algebra: an element of a tensor, exp of a
monomial, a sum over bound axes, a function of polynomials. All are sorted and frozen; `key` is a
digest of the content, so that equal terms have equal keys in every process.

>>> collect([(ONE, Fraction(2)), (ONE, Fraction(-2))]) == ZERO
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
