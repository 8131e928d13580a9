"""The larger and the smaller of two values, in the normal form of the proof.

Axioms, for reals:

    max is associative, commutative and idempotent; min(a, b) = -max(-a, -b)
    max(a + c, b + c) = max(a, b) + c
    max(a c, b c) = max(a, b) c                      c >= 0; a, b finite

>>> from prism_jax.verify.terms import element
>>> x, y = element("x", ()), element("y", ())
>>> extreme("min", x, y).key == scale(extreme("max", scale(y, -1), scale(x, -1)), -1).key
True
>>> extreme("max", scale(x, 3), scale(y, 6)).key == scale(extreme("max", x, scale(y, 2)), 3).key
True
"""

from __future__ import annotations

from fractions import Fraction

from prism_jax.verify.algebra import content, is_infinite, plus, product, scale, times
from prism_jax.verify.signs import infinities, may_be_infinite
from prism_jax.verify.terms import Atom, Mono, Poly, collect, of

_OPPOSITE = {"max": "min", "min": "max"}


def direction(poly: Poly) -> int:
    """The sign of an infinity, 0 for NaN."""
    [(mono, c)] = poly.terms
    return 0 if mono.factors[0][0].fields[0] == "nan" else 1 if c > 0 else -1


def extreme(op: str, a: Poly, b: Poly, sort: str = "") -> Poly:
    """max(a, b) or min(a, b): flattened, sorted; of reals, common terms and factors taken out.

    `sort` is that of integers, empty for reals.
    """
    worst = -1 if op == "max" else 1
    for one, other in ((a, b), (b, a)):
        if is_infinite(one) and direction(one):
            return other if direction(one) == worst else one
    args = {p.key: p for x in (a, b) for p in flattened(op, x)}
    if len(args) == 1:
        return a
    polys = [args[k] for k in sorted(args)]
    if sort or any(map(is_infinite, polys)):
        return of(_atom(op, sort, polys))
    shared = set(polys[0].terms).intersection(*(p.terms for p in polys[1:]))
    common = collect(t for t in shared if not may_be_infinite(t[0]))
    rest = [collect(t for t in p.terms if t not in common.terms) for p in polys]
    if any(map(infinities, rest)):
        return plus(common, of(_atom(op, sort, rest)))
    mono, lead = _factor(rest)
    rest = [_divided(p, mono, lead) for p in rest]
    one, other = _atom(op, sort, rest), _atom(_OPPOSITE[op], sort, [scale(p, -1) for p in rest])
    made = of(one) if one.key < other.key else scale(of(other), -1)
    return plus(common, times(Poly(((mono, lead),)), made))


def _atom(op: str, sort: str, polys: list[Poly]) -> Atom:
    ordered = sorted(polys, key=lambda p: p.key)
    return Atom("fn", (op, sort, tuple(ordered)))


def _factor(polys: list[Poly]) -> tuple[Mono, Fraction]:
    """The nonnegative factors that all share (zero has every factor), and the largest coefficient
    of what is no number.
    """
    found = [content(p, False)[1].powers for p in polys if p.terms]
    least = {a: min(f.get(a, Fraction(0)) for f in found) for a in found[0]}
    shared = sorted(((a, e) for a, e in least.items() if e > 0), key=lambda f: f[0].key)
    sizes = [abs(c) for p in polys for m, c in p.terms if m.factors]
    return Mono(tuple(shared)), max(sizes, default=Fraction(1))


def _divided(poly: Poly, mono: Mono, lead: Fraction) -> Poly:
    inverse = Mono(tuple((a, -e) for a, e in mono.factors))
    return collect(
        (n, c * d / lead)
        for m, c in poly.terms
        for n, d in product(m, inverse, guarded=False).terms
    )


def flattened(op: str, poly: Poly) -> list[Poly]:
    """The arguments, where the polynomial is this function of some (or minus the opposite one, or a
    multiple of these); else the polynomial alone.
    """
    if len(poly.terms) == 1 and len(poly.terms[0][0].factors) == 1:
        [(mono, c)] = poly.terms
        [(atom, e)] = mono.factors
        wanted = op if c > 0 else _OPPOSITE.get(op)
        if atom.kind == "fn" and e == 1 and atom.fields[0] == wanted:
            args = atom.fields[2]
            assert isinstance(args, tuple)
            return [scale(a, c) for a in args if isinstance(a, Poly)]
    return [poly]
