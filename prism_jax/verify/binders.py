"""Reductions over bound axes in the normal form, and substitution below binders.

Axioms, for every size of every axis:

    sum_k (a + b) = sum_k a + sum_k b,  sum_k c a = c sum_k a      [k not free in c]
    sum_i sum_j a = sum_{i,j} a,  (sum_i a)(sum_j b) = sum_{i,j} a b   interchange, splitting
    sum_s [k in part s] = 1                                           partition of an axis
    max_k (c + a) = c + max_k a,  max_k (c a) = c max_k a   [c >= 0]  monotone maps; min alike
    max_s max_{k in part s} a = max_k a
    max_k exp(a) = exp(max_k a),  max_k max(a, b) = max(max_k a, max_k b)
    prod_k (a b) = prod_k a prod_k b,  prod_k exp(a) = exp(sum_k a)

A sum over several axes is kept as a product of sums over axes that no factor connects. Bound axes
are named by nesting depth and by how they occur, so that renamed terms are one term. Sums, extremes
and substitution call each other, so they are in one file.

>>> from prism_jax.verify.algebra import times

>>> from prism_jax.verify.terms import axis_value, element
>>> i, k, n = Axis("i", 4), Axis("k", 8), Axis("n", 8)
>>> a = times(element("x", (axis_value(i),)), element("y", (axis_value(k),)))
>>> b = times(element("x", (axis_value(i),)), element("y", (axis_value(n),)))
>>> sum_over((k,), a).key == sum_over((n,), b).key
True
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

from prism_jax.ir.nodes import INTEGERS, Axis
from prism_jax.verify.algebra import plus, power, product, scale, times
from prism_jax.verify.signs import atom_nonnegative, infinities
from prism_jax.verify.terms import (
    Atom,
    Field,
    Mono,
    Poly,
    Unproven,
    axis_value,
    collect,
    number,
    of,
    sole_atom,
)

_fresh = itertools.count()
_NO_AXIS = Axis("", 0)
_OPEN_UP_TO = 3
_OF = "of "
_MOST_ORDERS = 720


# ---- substitution


def substitute(poly: Poly, axes: Mapping[Axis, Poly]) -> Poly:
    """The polynomial with axes' values replaced."""
    return _Substitution(axes).poly(poly)


def rename(poly: Poly, axes: Mapping[Axis, Axis]) -> Poly:
    """The polynomial with axes renamed."""
    changed = {a: axis_value(b) for a, b in axes.items() if a != b}
    return substitute(poly, changed) if changed else poly


class _Substitution:
    """Values for axes, put into terms; equal atoms are looked into once.

    A binder keeps its names where no value mentions them. Names say how deeply binders are nested
    below, so that those around it have others: opening every binder on the way, each time renaming
    all that is below, would cost a power of the depth. A value with binders of its own, such as an
    index that is an argmax, puts what it enters higher, to names that those around may have kept:
    with one of these every binder is opened.
    """

    def __init__(self, axes: Mapping[Axis, Poly]) -> None:
        self.axes = axes
        self.mentioned = frozenset(axes).union(*(p.axes for p in axes.values()))
        self.flat = not any(
            a.height for p in axes.values() for m, _ in p.terms for a, _ in m.factors
        )
        self._known: dict[Atom, Poly] = {}

    def poly(self, poly: Poly) -> Poly:
        if not poly.axes & self.axes.keys():
            return poly
        return plus(*(scale(self._mono(m), c) for m, c in poly.terms))

    def _mono(self, mono: Mono) -> Poly:
        if not mono.axes & self.axes.keys():
            return Poly(((mono, Fraction(1)),))
        kept = Mono(tuple((a, e) for a, e in mono.factors if not a.axes & self.axes.keys()))
        changed = [power(self._atom(a), e) for a, e in mono.factors if a.axes & self.axes.keys()]
        return times(*changed, Poly(((kept, Fraction(1)),))) if kept.factors else times(*changed)

    def _atom(self, atom: Atom) -> Poly:
        found = self._known.get(atom)
        if found is None:
            found = self._known[atom] = self._changed(atom)
        return found

    def _changed(self, atom: Atom) -> Poly:
        if atom.kind == "axis":
            return self.axes[_axis(atom.fields[0])]
        if atom.kind == "element" and len(atom.fields) == 2:
            indices = atom.fields[1]
            assert isinstance(indices, tuple)
            values = tuple(_map(f, self._index) for f in indices)
            return of(Atom("element", (atom.fields[0], values)))
        if not atom.bound:
            return rebuild(atom, self.poly)
        if self.flat and self.mentioned.isdisjoint(atom.bound):
            return _bind(atom, atom.bound, self.poly(body_of(atom)))
        inner = {a: p for a, p in self.axes.items() if a in atom.axes}
        return rebuild(atom, _Substitution(inner).poly)

    def _index(self, poly: Poly) -> Poly:
        axis = _as_axis(poly)
        return self.axes[axis] if axis in self.axes else self.poly(poly)


def _as_axis(poly: Poly) -> Axis:
    atom = sole_atom(poly)
    return _axis(atom.fields[0]) if atom is not None and atom.kind == "axis" else _NO_AXIS


def replace(poly: Poly, change: Callable[[Atom], Poly | None]) -> Poly:
    """The polynomial with atoms replaced, outermost first; None keeps an atom and looks inside."""

    def visit(p: Poly) -> Poly:
        return plus(
            *(scale(times(*(power(one(a), e) for a, e in m.factors)), c) for m, c in p.terms)
        )

    def one(atom: Atom) -> Poly:
        found = change(atom)
        return found if found is not None else rebuild(atom, visit)

    return visit(poly)


def rebuild(atom: Atom, inside: Callable[[Poly], Poly]) -> Poly:
    """The atom over changed polynomials, in normal form again."""
    from prism_jax.verify.functions import MAKERS

    if atom.kind == "axis":
        return of(atom)
    if atom.bound:
        body, bound = opened(atom)
        return _bind(atom, bound, inside(body))
    fields = tuple(_map(f, inside) for f in atom.fields)
    maker = MAKERS.get(atom.kind)
    return maker(*fields) if maker else of(Atom(atom.kind, fields))


def _bind(atom: Atom, bound: tuple[Axis, ...], body: Poly) -> Poly:
    """A sum or another reduction, as the atom is one, of another body."""
    if atom.kind == "sum":
        return sum_over(bound, body)
    return reduce_over(str(atom.fields[0]), bound, body, *atom.fields[2:])


def _map(field: Field, inside: Callable[[Poly], Poly]) -> Field:
    if isinstance(field, Poly):
        return inside(field)
    if isinstance(field, Mono):
        return inside(Poly(((field, Fraction(1)),)))
    if isinstance(field, tuple):
        return tuple(_map(f, inside) for f in field)
    if isinstance(field, Axis):
        changed = sole_atom(inside(axis_value(field)))
        if changed is None or changed.kind != "axis":
            raise Unproven(f"axis {field} of a part is not an axis after substitution")
        return changed.fields[0]
    return field


def _axis(field: Field) -> Axis:
    assert isinstance(field, Axis)
    return field


def opened(atom: Atom) -> tuple[Poly, tuple[Axis, ...]]:
    """The body of a binder with its axes renamed to names that nothing else has."""
    names = {a: Axis(f"!{next(_fresh)}", a.size) for a in atom.bound}
    return rename(body_of(atom), names), tuple(names.values())


def body_of(atom: Atom) -> Poly:
    """What a binder binds axes of."""
    body = atom.fields[0] if atom.kind == "sum" else atom.fields[1]
    return body if isinstance(body, Poly) else Poly(((_mono(body), Fraction(1)),))


def _mono(field: Field) -> Mono:
    assert isinstance(field, Mono)
    return field


# ---- sums


def sum_over(axes: Sequence[Axis], poly: Poly) -> Poly:
    """sum over the axes of the polynomial."""
    return plus(*(scale(_sum_mono(tuple(axes), m), c) for m, c in poly.terms))


def _sum_mono(axes: tuple[Axis, ...], mono: Mono) -> Poly:
    bound = set(axes)
    for atom, e in mono.factors:  # a sum inside a sum is one sum
        if atom.kind == "sum" and e.denominator == 1 and 0 < e <= _OPEN_UP_TO and atom.axes & bound:
            rest = Mono(tuple((a, x) for a, x in mono.factors if a is not atom))
            total = Poly(((rest, Fraction(1)),))
            more: tuple[Axis, ...] = ()
            for _ in range(int(e)):
                body, fresh = opened(atom)
                total, more = times(total, body), (*more, *fresh)
            return sum_over((*axes, *more), total)
    factors, axes = _without_parts(list(mono.factors), axes)
    bound = set(axes)
    result = [of(a, e) for a, e in factors if not a.axes & bound]
    if any(infinities(p) for p in result):
        raise Unproven("a value that a mask makes infinite does not leave a sum")
    inner = [(a, e) for a, e in factors if a.axes & bound]
    for group in _connected(axes, [a.axes & bound for a, _ in inner]):
        mine = tuple((a, e) for a, e in inner if a.axes & group)
        if mine:
            result.append(_sum_of(tuple(sorted(group)), Mono(mine)))
        else:
            result += [_size(a) for a in sorted(group)]
    return times(*result)


def _without_parts(
    factors: list[tuple[Atom, Fraction]], axes: tuple[Axis, ...]
) -> tuple[list[tuple[Atom, Fraction]], tuple[Axis, ...]]:
    """sum over s of [k in part s] is 1, where nothing else mentions s."""
    for n, (atom, _) in enumerate(factors):
        if atom.kind == "member":
            part = _axis(atom.fields[1])
            others = [a for m, (a, _) in enumerate(factors) if m != n]
            if part in axes and not any(part in a.axes for a in others):
                rest = [f for m, f in enumerate(factors) if m != n]
                return _without_parts(rest, tuple(a for a in axes if a != part))
    return factors, axes


def _size(axis: Axis) -> Poly:
    return number(axis.size) if isinstance(axis.size, int) else of(Atom("size", (axis.size,)))


def _connected(
    axes: Sequence[Axis], groups: Iterable[frozenset[Axis] | set[Axis]]
) -> list[set[Axis]]:
    """The axes in groups that share no factor."""
    found = [{a} for a in axes]
    for group in groups:
        touching = [f for f in found if f & group]
        merged = set[Axis]().union(*touching)
        found = [f for f in found if not f & group] + ([merged] if merged else [])
    return found


def _sum_of(axes: tuple[Axis, ...], mono: Mono) -> Poly:
    """The sum over axes that the factors connect; it can be minus one, since a maximum under other
    names may be minus a minimum.
    """
    height = 1 + max((a.height for a, _ in mono.factors), default=0)
    named, order = _named(axes, Poly(((mono, Fraction(1)),)), height)
    if len(named.terms) != 1:
        raise Unproven("a product that is another sum under other names")
    [(inside, c)] = named.terms
    return scale(of(Atom("sum", (inside,), order)), c)


# ---- other reductions


def reduction(
    monoid: str, axes: Sequence[Axis], body: Poly, sort: str, index_sort: str | None
) -> Poly:
    """A monoid over the axes of values of a sort."""
    if monoid == "sum":
        return sum_over(axes, body)
    index = (index_sort,) if index_sort else ()
    return reduce_over(monoid, axes, body, *index, *((_OF + sort,) if sort in INTEGERS else ()))


def reduce_over(monoid: str, axes: Sequence[Axis], body: Poly, *more: Field) -> Poly:
    """Another monoid over the axes: max, min, prod, any, all, argmax, argmin.

    `more` is the sort of the index, where there is one, and for integers their sort: they wrap, so
    that nothing moves through their maximum.
    """
    axes = tuple(axes)
    integers = any(isinstance(m, str) and m.startswith(_OF) for m in more)
    if integers and monoid in ("max", "min", "argmax", "argmin"):
        return _integer_extreme(monoid, axes, body, more)
    if monoid in ("max", "min"):
        return _extreme(monoid, axes, body)
    if monoid in ("argmax", "argmin"):
        moves = any(m.axes & set(axes) for m, _ in body.terms)
        kept = collect((m, c) for m, c in body.terms if m.axes & set(axes) or infinities(m))
        if moves and kept.terms:
            kept = scale(kept, 1 / _largest(kept))
        atom, _ = _signed_atom(monoid, axes, kept, more)
        return of(atom)
    nested = sole_atom(body)
    if nested is not None and nested.kind == "reduce" and nested.fields[0] == monoid:
        inside, fresh = opened(nested)
        return reduce_over(monoid, (*axes, *fresh), inside, *more)
    if monoid == "prod" and not more and len(body.terms) == 1:
        return _product(axes, body)
    return of(_reduce_atom(monoid, axes, body, more))


def _product(axes: tuple[Axis, ...], body: Poly) -> Poly:
    """prod_k (a b) = prod_k a prod_k b, prod_k exp(a) = exp(sum_k a)."""
    from prism_jax.verify.functions import exponential

    [(mono, c)] = body.terms
    parts = [of(_reduce_atom("prod", axes, number(c), ()))] if c != 1 else []
    for atom, e in mono.factors:
        if atom.kind == "exp":
            inside = Poly(((_mono(atom.fields[0]), e),))
            parts.append(exponential(sum_over(axes, inside)))
        else:
            parts.append(of(_reduce_atom("prod", axes, of(atom, e), ())))
    return times(*parts)


def _integer_extreme(
    monoid: str, axes: tuple[Axis, ...], body: Poly, more: tuple[Field, ...]
) -> Poly:
    if monoid in ("max", "min"):
        atom = sole_atom(body)
        if atom is not None and atom.kind == "reduce" and atom.fields[0] == monoid:
            inside, fresh = opened(atom)
            return _integer_extreme(monoid, (*axes, *fresh), inside, more)
        body, axes = _whole(body, axes)
        axes = tuple(a for a in axes if a in body.axes)
        if not axes:
            return body
    return of(_reduce_atom(monoid, axes, body, more))


def _extreme(monoid: str, axes: tuple[Axis, ...], body: Poly) -> Poly:
    bound = set(axes)
    outside = collect((m, c) for m, c in body.terms if not m.axes & bound and not infinities(m))
    inner = collect((m, c) for m, c in body.terms if m.axes & bound or infinities(m))
    if not inner.terms:
        return outside
    common = _common(inner, bound)
    if common.factors:  # max_k g a(k) = g max_k a(k) for g >= 0
        rest = _extreme(monoid, axes, _divided(inner, common))
        return plus(outside, times(Poly(((common, Fraction(1)),)), rest))
    lead = _largest(inner)
    inner = scale(inner, 1 / lead)
    atom = sole_atom(inner)
    if atom is not None and atom.kind == "reduce" and atom.fields[0] == monoid:
        inside, fresh = opened(atom)
        return plus(outside, scale(_extreme(monoid, (*axes, *fresh), inside), lead))
    known = _monotone(monoid, axes, inner)
    if known is not None:
        return plus(outside, scale(known, lead))
    whole, fewer = _whole(inner, axes)
    if fewer != axes:
        return plus(outside, scale(_extreme(monoid, fewer, whole), lead))
    used = tuple(a for a in axes if a in inner.axes)  # the maximum of a constant is the constant
    if not used:
        return plus(outside, scale(inner, lead))
    if _mentions_choice(inner):
        return plus(outside, scale(of(_reduce_atom(monoid, used, inner, ())), lead))
    made, sign = _signed_atom(monoid, used, inner, ())
    return plus(outside, scale(of(made), sign * lead))


def _monotone(monoid: str, axes: tuple[Axis, ...], body: Poly) -> Poly | None:
    """max_k exp(a) = exp(max_k a); max_k max(a, b) = max(max_k a, max_k b)."""
    from prism_jax.verify.extremes import extreme, flattened
    from prism_jax.verify.functions import exponential

    if len(body.terms) != 1 or len(body.terms[0][0].factors) != 1:
        return None
    [(mono, c)] = body.terms
    [(atom, e)] = mono.factors
    opposite = {"max": "min", "min": "max"}[monoid]
    if atom.kind == "exp" and abs(c) == 1:
        inside = Poly(((_mono(atom.fields[0]), e),))
        return scale(exponential(_extreme(monoid if c > 0 else opposite, axes, inside)), c)
    first, *rest = flattened(monoid, body)
    if not rest:
        return None
    result = _extreme(monoid, axes, first)
    for poly in rest:
        result = extreme(monoid, result, _extreme(monoid, axes, poly))
    return result


def _common(poly: Poly, bound: set[Axis], positive: bool = False) -> Mono:
    """The nonnegative factors that all terms have and that no bound axis enters.

    Where a mask makes a term infinite they must be positive: 0 times an infinity is no number.
    """
    choice = _choice(poly)
    if choice is not None:
        return _common(_poly(choice.fields[1]), bound, True)
    if not poly.terms:
        return Mono()
    powers = [m.powers for m, _ in poly.terms]
    positive = positive or bool(infinities(poly))
    shared = [
        (atom, e)
        for atom, e in poly.terms[0][0].factors
        if not atom.axes & bound
        and all(one.get(atom) == e for one in powers)
        and (not positive or atom.kind in ("exp", "prime") or e < 0)
        and (atom_nonnegative(atom) or e % 2 == 0 or e.denominator % 2 == 0)
    ]
    return Mono(tuple(shared))


def _divided(poly: Poly, common: Mono) -> Poly:
    """The polynomial without these factors; below a mask too, which they do not change."""
    from prism_jax.verify.functions import masked

    choice = _choice(poly)
    if choice is not None:
        condition, inside, sign = choice.fields
        assert isinstance(sign, int)
        rest = masked(_poly(condition), _divided(_poly(inside), common), sign)
        return scale(rest, poly.terms[0][1])
    inverse = Mono(tuple((a, -e) for a, e in common.factors))
    return collect(
        (n, c * d) for m, c in poly.terms for n, d in product(m, inverse, guarded=False).terms
    )


def _choice(poly: Poly) -> Atom | None:
    """The masked value that the polynomial is a multiple of."""
    if len(poly.terms) == 1 and len(poly.terms[0][0].factors) == 1:
        atom, e = poly.terms[0][0].factors[0]
        return atom if atom.kind == "masked" and e == 1 else None
    return None


def _largest(poly: Poly) -> Fraction:
    """The largest coefficient: a positive scale that does not depend on names."""
    return max((abs(c) for _, c in poly.terms), default=Fraction(1))


def _signed_atom(
    monoid: str, axes: tuple[Axis, ...], body: Poly, more: tuple[Field, ...]
) -> tuple[Atom, int]:
    """The reduction, or minus the opposite one of minus the body: whichever has the first key."""
    opposite = {"max": "min", "min": "max", "argmax": "argmin", "argmin": "argmax"}[monoid]
    one = _reduce_atom(monoid, axes, body, more)
    other = _reduce_atom(opposite, axes, scale(body, -1), more)
    return (one, 1) if one.key < other.key else (other, -1)


def _whole(body: Poly, axes: tuple[Axis, ...]) -> tuple[Poly, tuple[Axis, ...]]:
    """max over s and over k in part s is max over k, where nothing else mentions s."""
    atom = sole_atom(body)
    if atom is None or atom.kind != "masked":
        return body, axes
    condition = sole_atom(_poly(atom.fields[0]))
    inside = _poly(atom.fields[1])
    if condition is not None and condition.kind == "member":
        part = _axis(condition.fields[1])
        if part in axes and part not in inside.axes:
            return _whole(inside, tuple(a for a in axes if a != part))
    return body, axes


def _poly(field: Field) -> Poly:
    assert isinstance(field, Poly)
    return field


def _mentions_choice(poly: Poly) -> bool:
    return any(a.kind == "masked" for m, _ in poly.terms for a, _ in m.factors)


def _reduce_atom(monoid: str, axes: tuple[Axis, ...], body: Poly, more: tuple[Field, ...]) -> Atom:
    heights = [a.height for m, _ in body.terms for a, _ in m.factors]
    named, order = _named(axes, body, 1 + max(heights, default=0))
    return Atom("reduce", (monoid, named, *more), order)


# ---- names of bound axes


def _named(axes: tuple[Axis, ...], body: Poly, height: int) -> tuple[Poly, tuple[Axis, ...]]:
    """The body with its bound axes renamed in an order that depends on how they occur only."""
    others = body.axes.difference(axes)
    if any(Axis(f"~{height}.{n}", a.size) in others for n in range(len(axes)) for a in axes):
        raise Unproven("a bound axis would take the name of one that is bound around it")
    if len(axes) == 1:
        name = Axis(f"~{height}.0", axes[0].size)
        return rename(body, {axes[0]: name}), (name,)
    shape = _Shapes()
    shapes = {a: (str(a.size), shape.of(body, a, frozenset(axes))) for a in axes}
    ordered = sorted(axes, key=lambda a: shapes[a])
    ties = [list(g) for _, g in itertools.groupby(ordered, key=lambda a: shapes[a])]
    if math.prod(math.factorial(len(g)) for g in ties) > _MOST_ORDERS:
        raise Unproven("too many bound axes occur alike")
    best: tuple[Poly, tuple[Axis, ...]] | None = None
    for orders in itertools.product(*(itertools.permutations(g) for g in ties)):
        order = tuple(a for g in orders for a in g)
        names = tuple(Axis(f"~{height}.{n}", a.size) for n, a in enumerate(order))
        found = rename(body, dict(zip(order, names, strict=True)))
        if best is None or found.key < best[0].key:
            best = (found, names)
    assert best is not None
    return best


def anonymous(poly: Poly) -> Poly:
    """The polynomial with its free axes renamed in an order that depends on how they occur only."""
    axes = tuple(sorted(poly.axes))
    if not axes:
        return poly
    heights = [a.height for m, _ in poly.terms for a, _ in m.factors]
    return _named(axes, poly, 1 + max(heights, default=0))[0]


class _Shapes:
    """How axes occur in terms: a term's text with one axis starred, the other bound ones blanked.
    What an axis does not occur in has one text for all that do not.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, Axis, frozenset[Axis]], str] = {}

    def of(self, field: Field, axis: Axis, bound: frozenset[Axis]) -> str:
        """The text of a field."""
        if isinstance(field, Axis):
            return "*" if field == axis else "?" if field in bound else f"{field.name}:{field.size}"
        if isinstance(field, tuple):
            return "(" + ",".join(self.of(f, axis, bound) for f in field) + ")"
        if not isinstance(field, Atom | Mono | Poly):
            return repr(field)
        if not field.axes & bound:
            return field.key
        key = field.key, axis if axis in field.axes else _NO_AXIS, bound
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._text(field, axis, bound)
        return found

    def _text(self, field: Atom | Mono | Poly, axis: Axis, bound: frozenset[Axis]) -> str:
        if isinstance(field, Atom):
            return f"{field.kind}{self.of(field.fields, axis, bound.union(field.bound))}"
        if isinstance(field, Mono):
            texts = [f"[{self.of(a, axis, bound)}^{e}]" for a, e in field.factors]
        else:
            texts = [f"<{c}{self.of(m, axis, bound)}>" for m, c in field.terms]
        return "".join(sorted(texts))
