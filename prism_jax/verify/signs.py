"""Signs and infinities of terms of the proof: what is never negative, what a mask makes infinite.

In: a term. Out: whether it is nonnegative for all real inputs, and which infinities it may be. The
proof is for finite inputs, but masks write infinities of their own, and those have no algebra:
x - x = 0, 0 x = 0 and x / x = 1 hold for finite numbers only. A root or a logarithm likewise has no
value for some inputs, which a term in which it has vanished no longer shows. `settle` and
`may_cancel` refuse such a cancellation.

>>> from prism_jax.verify.terms import element, of
>>> from prism_jax.ir.nodes import Axis
>>> x, seen = element("x", ()), element("seen", ())
>>> low = of(Atom("masked", (seen, x, -1)))
>>> sorted(infinities(low)), sorted(infinities(of(Atom("reduce", ("max", low)))))
([-1], [])
>>> settle([*low.terms, (low.terms[0][0], Fraction(-1))])
Traceback (most recent call last):
    ...
prism_jax.verify.terms.Unproven: what a mask makes infinite does not cancel
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from prism_jax.verify.terms import Atom, Field, Mono, Poly, Unproven, collect, of

_NEITHER, _BOTH = frozenset[int](), frozenset((-1, 1))
_FINITE_FUNCTIONS = (
    "lt", "le", "eq", "ne", "nonnegative", "not", "and", "or", "xor", "where", "is_finite",
    "tanh", "erf", "sign",
)  # fmt: skip


# ---- signs


def nonnegative(poly: Poly) -> bool:
    """Whether the value is >= 0 for real inputs, as far as the form shows."""
    return all(c > 0 and factors_nonnegative(m) for m, c in poly.terms)


def strictly_positive(poly: Poly) -> bool:
    """Whether the value is > 0 for real inputs, as far as the form shows."""
    sure = ("exp", "prime")
    certain = (all(a.kind in sure for a, _ in m.factors) for m, _ in poly.terms)
    return nonnegative(poly) and any(certain)


def factors_nonnegative(mono: Mono) -> bool:
    """Whether every factor is >= 0 for real inputs."""
    return all(atom_nonnegative(a) or e % 2 == 0 or e.denominator % 2 == 0 for a, e in mono.factors)


def atom_nonnegative(atom: Atom) -> bool:
    """Whether an atom is >= 0 for real inputs."""
    if atom.kind in ("exp", "prime", "indicator", "member", "abs"):
        return True
    if atom.kind in ("sum", "group"):
        inside = atom.fields[0]
        return (
            factors_nonnegative(inside)
            if isinstance(inside, Mono)
            else (isinstance(inside, Poly) and nonnegative(inside))
        )
    if atom.kind == "reduce" and atom.fields[0] in ("max", "min", "prod"):
        return isinstance(atom.fields[1], Poly) and nonnegative(atom.fields[1])
    return False


# ---- infinities


def infinities(poly: Field) -> frozenset[int]:
    """The signs of the infinities that a mask may make of it; both for a NaN.

    A maximum of masked elements is finite where one of them is not masked, which is assumed.
    """
    found = set[int]()
    if isinstance(poly, Mono):
        poly = Poly(((poly, Fraction(1)),))
    if isinstance(poly, Poly):
        for mono, c in poly.terms:
            found |= _of_product(mono, c)
    return frozenset(found)


def may_be_infinite(mono: Mono) -> bool:
    """Whether a mask may make a factor infinite."""
    return any(_of_atom(a) for a, _ in mono.factors)


def _of_product(mono: Mono, c: Fraction) -> frozenset[int]:
    odd = [(a, e) for a, e in mono.factors if _of_atom(a)]
    if not odd:
        return _NEITHER
    rest = Mono(tuple(f for f in mono.factors if f not in odd))
    if len(odd) == 1 and odd[0][1] == 1 and factors_nonnegative(rest):
        return frozenset(s if c > 0 else -s for s in _of_atom(odd[0][0]))
    return _BOTH


def _of_atom(atom: Atom) -> frozenset[int]:
    fields = atom.fields
    match atom.kind:
        case "masked":
            sign = fields[2]
            known = _BOTH if sign not in (-1, 1) else frozenset((1 if sign == 1 else -1,))
            return known | infinities(fields[1])
        case "infinity":
            return _BOTH
        case "sum":
            return infinities(fields[0])
        case "abs" | "log" | "group":
            return _BOTH if infinities(fields[0]) else _NEITHER
        case "fn":
            args = fields[2] if isinstance(fields[2], tuple) else ()
            return _of_function(str(fields[0]), [infinities(a) for a in args])
        case "reduce":
            some = infinities(fields[1])
            if fields[0] in ("max", "min"):
                return some - {-1 if fields[0] == "max" else 1}
            return _BOTH if some and fields[0] == "prod" else _NEITHER
        case _:
            return _NEITHER


def _of_function(name: str, args: list[frozenset[int]]) -> frozenset[int]:
    if name in ("max", "min"):
        best = 1 if name == "max" else -1
        some = {best} if any(best in a for a in args) else set[int]()
        return frozenset(some | ({-best} if all(-best in a for a in args) else set[int]()))
    if name == "choose":
        return frozenset[int]().union(*args[1:])
    return _BOTH if name not in _FINITE_FUNCTIONS and any(args) else _NEITHER


# ---- what cancels


def settle(terms: Iterable[tuple[Mono, Fraction]]) -> Poly:
    """The polynomial with these terms, like ones added; what cancels has a finite value."""
    terms = tuple(terms)
    found = collect(terms)
    if len(found.terms) < len(terms):
        kept = {m for m, _ in found.terms}
        for mono, _ in terms:
            if mono not in kept:
                may_cancel(mono)
    return found


def may_cancel(mono: Mono) -> None:
    """Raises `Unproven` where a product may be infinite, or has no value for some inputs."""
    if may_be_infinite(mono):
        raise Unproven("what a mask makes infinite does not cancel")
    for atom, e in mono.factors:
        if e.denominator != 1 or atom.kind == "log":
            may_vanish(atom)


def may_vanish(atom: Atom) -> None:
    """Raises `Unproven` where a root of the atom, or the logarithm that it is, hides its domain.

    sqrt(x)^2 = x and log(x) - log(x) = 0 hold only where x is not negative.
    """
    inside = atom.fields[0] if atom.kind == "log" else of(atom)
    if not (isinstance(inside, Poly) and nonnegative(inside)):
        raise Unproven("a root or a logarithm of what may be negative does not vanish")
