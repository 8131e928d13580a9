"""Which exponentials of a candidate are safe from overflow: those that the program has too, or
whose argument is a value minus a maximum that includes it.

The proof is over the reals, where exp(s - m) / sum exp(s - m) is the same for every m. In floating
point it is not, so a proof names the exponentials that nothing here bounds, and the evidence then
asks for the accuracy contract as well. Rules, for c > 0:

    own       the argument is one of the program's own, running values taken as final ones
    negative  the argument is minus something that is >= 0
    shift     c s(k) - c max_k s(k), also with the maximum of one share of k
    rescale   c (old - new) for the running value of a maximum, c (new - old) for a minimum

>>> from prism_jax.ir.nodes import Axis
>>> from prism_jax.verify.binders import reduce_over
>>> from prism_jax.verify.terms import axis_value, element
>>> s = element("s", (axis_value(k := Axis("k", 8)),))
>>> is_bounded(minus(s, reduce_over("max", (k,), s)), set(), {}), is_bounded(s, set(), {})
(True, False)
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction

from prism_jax.ir.nodes import Axis, Node, Pointwise
from prism_jax.ir.program import walk
from prism_jax.verify.algebra import is_infinite, minus, plus, scale, times
from prism_jax.verify.binders import anonymous, opened, reduce_over, rename, replace
from prism_jax.verify.signs import nonnegative
from prism_jax.verify.terms import (
    UNIT,
    Atom,
    Mono,
    Poly,
    Unproven,
    constant,
    element,
    of,
    sole_atom,
)

EXPONENTIALS = ("exp", "exp2", "expm1")
_MOST_AXES = 3


def arguments(root: Node) -> Iterator[Node]:
    """The arguments of the exponentials below a node."""
    for node in walk([root]):
        if isinstance(node, Pointwise) and node.op in EXPONENTIALS:
            yield node.args[0]


def shape_key(poly: Poly) -> str:
    """A key that is equal for terms that are renamings of each other."""
    try:
        return anonymous(poly).key
    except Unproven:
        return poly.key


def is_bounded(argument: Poly, own: Collection[str], monoids: Mapping[str, str]) -> bool:
    """Whether exp of the argument is known not to overflow where the program's own does not.

    Args:
        argument: over running values ("old r", "new r") only if it is a rescaling's.
        own: keys (`shape_key`) of the program's own arguments.
        monoids: the monoids of the accumulators that run, by name.
    """
    try:
        return _is_bounded(argument, own, monoids)
    except Unproven:
        return False


def _is_bounded(argument: Poly, own: Collection[str], monoids: Mapping[str, str]) -> bool:
    if constant(argument) is not None or is_infinite(argument):
        return True
    if shape_key(argument) in own or nonnegative(scale(argument, -1)):
        return True
    argument = replace(argument, _finite)
    if _rescale(argument, monoids) or _shares(argument):
        return True
    return any(_shift(argument, *found) for found in _extremes(argument))


def _finite(atom: Atom) -> Poly | None:
    """Where a maximum is not finite, log-sum-exp puts 0 in its place; a shift is by finite ones."""
    if atom.kind == "indicator" and isinstance(atom.fields[0], Poly):
        test = sole_atom(atom.fields[0])
        if test is not None and test.kind == "fn" and test.fields[0] == "is_finite":
            return UNIT
    return None


def _extremes(poly: Poly) -> list[tuple[Atom, Mono, Fraction]]:
    """Maxima with negative and minima with positive factors: (atom, other factors, coefficient)."""
    found: list[tuple[Atom, Mono, Fraction]] = []
    for mono, c in poly.terms:
        split = _extreme_in(mono)
        if split is not None and split[0].fields[0] == ("max" if c < 0 else "min"):
            found.append((*split, c))
    return found


def _extreme_in(mono: Mono) -> tuple[Atom, Mono] | None:
    """The maximum or minimum in a product with nonnegative factors, and those."""
    for atom, e in mono.factors:
        if atom.kind == "reduce" and atom.fields[0] in ("max", "min") and e == 1:
            others = Mono(tuple(f for f in mono.factors if f[0] is not atom))
            if nonnegative(Poly(((others, Fraction(1)),))):
                return atom, others
    return None


def _shift(argument: Poly, atom: Atom, others: Mono, c: Fraction) -> bool:
    """Whether the argument is c g times a maximum, minus c g times something that it includes."""
    whole = times(of(atom), Poly(((others, c),)))
    inverse = Mono(tuple((a, -e) for a, e in others.factors))
    rest = times(minus(argument, whole), Poly(((inverse, -1 / c),)))
    body, bound = opened(atom)
    for inside in (body, _share(body)):
        if inside is not None and _instance(inside, bound, rest):
            return True
    return False


def _shares(argument: Poly) -> bool:
    """Whether the argument vanishes once the maximum of each share is raised to that of all."""
    raised: list[Poly] = []
    found = False
    for mono, c in argument.terms:
        value = Poly(((mono, c),))
        split = _extreme_in(mono)
        if split is not None and split[0].fields[0] == ("max" if c > 0 else "min"):
            body, axes = opened(split[0])
            inner = _share(body)
            if inner is not None:
                found = True
                whole = reduce_over(str(split[0].fields[0]), axes, inner)
                value = times(whole, Poly(((split[1], c),)))
        raised.append(value)
    return found and not plus(*raised).terms


def _share(body: Poly) -> Poly | None:
    """What a maximum over one share of an axis is taken of."""
    atom = sole_atom(body)
    if atom is None or atom.kind != "masked":
        return None
    condition, inside = atom.fields[0], atom.fields[1]
    assert isinstance(condition, Poly)
    assert isinstance(inside, Poly)
    test = sole_atom(condition)
    return inside if test is not None and test.kind == "member" else None


def _instance(body: Poly, bound: tuple[Axis, ...], value: Poly) -> bool:
    """Whether the value is the body at some values of the bound axes."""
    if len(bound) > _MOST_AXES:
        return False
    free = sorted(value.axes)
    for axes in itertools.permutations(free, len(bound)):
        if rename(body, dict(zip(bound, axes, strict=True))) == value:
            return True
    return False


def _rescale(argument: Poly, monoids: Mapping[str, str]) -> bool:
    """Whether the argument falls as a maximum grows: c (old - new)."""

    def settle(atom: Atom) -> Poly | None:
        name = running(atom, "old ")
        if name is None:
            return None
        index = atom.fields[1]
        assert isinstance(index, tuple)
        return element(f"new {name}", index)

    signs: list[bool] = []
    for mono, c in argument.terms:
        for atom, _ in mono.factors:
            name = running(atom, "old ")
            if name is not None:
                signs.append(monoids.get(name) == ("max" if c > 0 else "min"))
    return bool(signs) and all(signs) and not replace(argument, settle).terms


def running(atom: Atom, prefix: str) -> str | None:
    """The accumulator whose old or new value an atom is."""
    name = atom.fields[0]
    if atom.kind == "element" and isinstance(name, str) and name.startswith(prefix):
        return name[len(prefix) :]
    return None
