"""The tensor language of the e-graph: n-ary sums, products and reductions in normal form.

Heads: ``("sum", c0, coefficients)`` is c0 + sum(c * child); ``("prod", exponents)`` is
product(child ** e); ``("reduce", monoid, axes, index sort)``; ``("op", name, parameter)``; leaves
``("load", Load)``, ``("const", value, sort)``, ``("iota", axis, sort)``.

Invariants: children of sums and products are sorted by class id with no duplicates that may be
joined; scalars live only in sums (a product or a linear reduction of ``c * t`` is ``c`` times that
of ``t``); a non-finite constant is an opaque leaf. Flattening goes through children *built as* sums
or products (their founder), one level, never through every node of a class, so that a class which
holds both ``2 * b`` and ``b = a / 2`` cannot make it loop.

Exponents of one base are added only where that is true: same-signed integers always; opposite signs
if the base is proven finite and nonzero; fractions if it is proven non-negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from prism_jax.egraph import facts as fx
from prism_jax.egraph.core import EGraph, ENode, Language, head
from prism_jax.egraph.decisions import exactly
from prism_jax.egraph.facts import Facts
from prism_jax.ir.nodes import REAL, Axis, Load, Parameter, Precision
from prism_jax.ir.ops import OPS

Term = tuple[int, Fraction]
"""A class with its coefficient (in a sum) or exponent (in a product)."""


class TensorLanguage(Language):
    """Facts and normal forms of the heads above. `precision` is given to reductions that are made
    while it is set.
    """

    has_facts = True

    def __init__(self) -> None:
        self.precision: Precision | None = None

    def canonical(self, graph: EGraph, node: ENode) -> ENode | int:
        """Children canonical and sorted; sums and products collected; what collapses is returned as
        its class.
        """
        find, head = graph.find, node[0]
        children = [find(child) for child in node[1:]]
        kind = head[0]
        if kind == "sum":
            return _canonical_sum(graph, head[1], list(zip(children, head[2], strict=True)))
        if kind == "prod":
            return _canonical_product(graph, list(zip(children, head[1], strict=True)))
        if kind == "op" and OPS[head[1]].commutative:
            children.sort()
        if kind == "reduce":
            return _canonical_reduce(graph, head, children[0])
        return (head, *children)

    def facts(self, graph: EGraph, node: ENode) -> Facts:
        """A node's facts from its children's."""
        head = node[0]
        args = [graph.facts(child) for child in node[1:]]
        match head[0]:
            case "sum":
                found = fx.of_sum(head[1], list(zip(args, head[2], strict=True)))
                return _below_maximum(graph, node, found)
            case "prod":
                return fx.of_product(list(zip(args, head[1], strict=True)))
            case "reduce":
                found = fx.of_reduce(head[1], head[2], args[0], head[3])
                return fx.replace(found, precision=self.precision)
            case "op":
                sort = OPS[head[1]].sort(tuple(a.sort for a in args), head[2])
                return fx.of_operator(head[1], head[2], tuple(args), sort)
            case "load":
                load: Load = head[1]
                fill = load.fill
                finite = load.sort == REAL and (fill is None or math.isfinite(float(fill.value)))
                return Facts(frozenset(load.axes_free), load.sort, finite=finite)
            case "iota":
                return Facts(frozenset((head[1],)), head[2])
            case _:
                return _opaque(head[1], head[2])

    def join(self, one: Facts, other: Facts) -> Facts:
        """Facts of a merged class."""
        return fx.join(one, other)

    def text(self, head: Any) -> str:
        """Heads as they are written in rules."""
        match head[0]:
            case "sum":
                texts = [str(c) for c in head[2]]
                return "sum[" + ", ".join([*texts, str(head[1])] if head[1] else texts) + "]"
            case "prod":
                return "prod[" + ", ".join(map(str, head[1])) + "]"
            case "reduce":
                return f"{head[1]}{{{','.join(a.name for a in head[2])}}}"
            case "op":
                return str(head[1]) if head[2] is None else f"{head[1]}[{head[2]}]"
            case "load":
                return f"{head[1].tensor.name}[{_indices(head[1])}]"
            case "iota":
                return f"iota({head[1].name})"
            case _:
                return str(head[1])


def _indices(load: Load) -> str:
    return ",".join(
        index.axis.name
        if index.axis is not None
        else f"<{'+'.join(a.name for a in index.axes_free)}>"
        for index in load.index
    )


def _opaque(value: Any, sort: str) -> Facts:
    if sort == REAL and not math.isnan(value):
        return Facts(sort=REAL, low=value, high=value, nonzero=True)
    return Facts(sort=sort)


def _below_maximum(graph: EGraph, node: ENode, found: Facts) -> Facts:
    """``t - max{k}(t)`` is at most 0, and dually; seen where the rest of the sum *is* the body of
    the maximum.
    """
    terms = list(zip(node[1:], node[0][2], strict=True))
    for place, (child, c) in enumerate(terms):
        if c not in (1, -1):
            continue
        for entry in graph.nodes(child, "reduce"):
            monoid = entry[0][1]
            if monoid not in ("max", "min") or entry[0][3] is not None:
                continue
            rest = terms[:place] + terms[place + 1 :]
            sign = -c  # the rest must be sign * body
            scaled = [(x, d * sign) for x, d in rest]
            if lookup_sum(graph, node[0][1] * sign, scaled) != graph.find(entry[1]):
                continue
            # rest = sign * body: the value is sign * (body - extreme)
            above = (monoid == "max") == (sign > 0)
            return fx.join(
                found, fx.replace(found, high=0.0) if above else fx.replace(found, low=0.0)
            )
    return found


# ---- canonical nodes (no flattening: repairs must not change what a node means)


def _canonical_sum(graph: EGraph, c0: Fraction, terms: list[Term]) -> ENode | int:
    total: dict[int, Fraction] = {}
    for child, c in terms:
        known: Facts = graph.facts(child)
        if known.constant is not None:
            c0 += c * known.constant
        else:
            total[child] = total.get(child, Fraction(0)) + c
    kept = [(x, c) for x, c in sorted(total.items()) if c != 0 or not graph.facts(x).finite]
    if c0 == 0 and len(kept) == 1 and kept[0][1] == 1:
        return kept[0][0]
    return (head("sum", c0, tuple(c for _, c in kept)), *(x for x, _ in kept))


def _canonical_product(graph: EGraph, factors: list[Term]) -> ENode | int:
    scale = Fraction(1)
    groups: dict[int, list[Fraction]] = {}
    for child, e in factors:
        value = graph.facts(child).constant
        if value is not None and value != 0 and e.denominator == 1:
            scale *= value**e.numerator
        else:
            groups.setdefault(child, []).append(e)
    kept: list[Term] = []
    for child in sorted(groups):
        kept += [(child, e) for e in _collect(groups[child], graph.facts(child))]
    if scale != 1:
        return add_sum(graph, Fraction(0), [(add_product(graph, kept), scale)])
    if not kept:
        return add_number(graph, Fraction(1))
    if len(kept) == 1 and kept[0][1] == 1:
        return kept[0][0]
    return (head("prod", tuple(e for _, e in kept)), *(x for x, _ in kept))


def _collect(exponents: list[Fraction], base: Facts) -> list[Fraction]:
    """Adds exponents of one base where that is sound; the result is sorted."""
    if len(exponents) == 1:
        return exponents
    whole = all(e.denominator == 1 for e in exponents)
    up, down = (
        sum((e for e in exponents if (e > 0) == sign), Fraction(0)) for sign in (True, False)
    )
    if not whole and not base.nonnegative:
        return sorted(exponents)
    if up and down and not (base.nonzero and base.finite):
        return [down, up]
    return [up + down] if up + down else []


def _canonical_reduce(graph: EGraph, head: Any, body: int) -> ENode | int:
    """Axes that the body turned out not to have leave the reduction."""
    _, monoid, axes, index_sort = head
    free = graph.facts(body).free
    missing = [axis for axis in axes if axis not in free]
    if not missing or index_sort is not None:
        return (head, body)
    kept = tuple(axis for axis in axes if axis in free)
    if monoid in ("max", "min", "any", "all"):
        return graph.add((("reduce", monoid, kept, None), body)) if kept else body
    if (
        monoid == "sum"
        and all(isinstance(axis.size, int) for axis in missing)
        and graph.facts(body).sort == REAL
    ):
        inner = graph.add((("reduce", monoid, kept, None), body)) if kept else body
        exactly(missing)
        count = math.prod(int(axis.size) for axis in missing)
        return add_sum(graph, Fraction(0), [(inner, Fraction(count))])
    return (head, body)


# ---- constructors (these flatten)


def add_number(graph: EGraph, value: Fraction) -> int:
    """The class of a finite real number."""
    return graph.add((head("sum", Fraction(value), ()),))


def terms_of(graph: EGraph, identifier: int) -> tuple[Fraction, list[Term]]:
    """A class as a sum: what it was built as, or itself."""
    node = graph.founder[graph.find(identifier)]
    if node[0][0] == "sum":
        return node[0][1], [(graph.find(x), c) for x, c in zip(node[1:], node[0][2], strict=True)]
    return Fraction(0), [(graph.find(identifier), Fraction(1))]


def factors_of(graph: EGraph, identifier: int) -> list[Term]:
    """A class as a product: what it was built as, or itself."""
    node = graph.founder[graph.find(identifier)]
    if node[0][0] == "prod":
        return [(graph.find(x), e) for x, e in zip(node[1:], node[0][1], strict=True)]
    return [(graph.find(identifier), Fraction(1))]


def scaled(graph: EGraph, identifier: int) -> tuple[Fraction, int]:
    """A class as ``c * t``."""
    c0, terms = terms_of(graph, identifier)
    if c0 == 0 and len(terms) == 1 and terms[0][1] != 0:
        return terms[0][1], terms[0][0]
    return Fraction(1), graph.find(identifier)


def _flat_sum(graph: EGraph, c0: Fraction, terms: Iterable[Term]) -> tuple[Fraction, list[Term]]:
    total: dict[int, Fraction] = {}
    for child, c in terms:
        inner0, inner = terms_of(graph, child)
        c0 += c * inner0
        for x, d in inner:
            total[x] = total.get(x, Fraction(0)) + c * d
    return c0, list(total.items())


def add_sum(graph: EGraph, c0: Fraction, terms: Iterable[Term], kept: Iterable[Term] = ()) -> int:
    """``c0 + sum(c * t)``. Terms of `kept` stay classes of their own even if they were built as
    sums: what a rule has just factored must not be multiplied out again.
    """
    c0, flat = _flat_sum(graph, Fraction(c0), terms)
    for child, c in kept:
        d, inner = scaled(graph, child)
        flat.append((inner, c * d))
    return graph.add((head("sum", c0, tuple(c for _, c in flat)), *(x for x, _ in flat)))


def lookup_sum(graph: EGraph, c0: Fraction, terms: Iterable[Term]) -> int | None:
    """The class of a sum if the graph holds it; adds nothing."""
    c0, flat = _flat_sum(graph, c0, terms)
    node = _canonical_sum(graph, c0, flat)
    return graph.find(node) if isinstance(node, int) else graph.lookup(node)


def add_product(graph: EGraph, factors: Iterable[Term], kept: Iterable[int] = ()) -> int:
    """``product(b ** e)``, scalars in front; factors of `kept` stay classes of their own."""
    scale, flat = Fraction(1), list[Term]()
    for child in kept:
        c, inner = scaled(graph, child)
        scale *= c
        flat.append((inner, Fraction(1)))
    for child, e in factors:
        value, inner = _power_factors(graph, child, e)
        scale *= value
        flat += inner
    if scale == 0 and all(graph.facts(x).finite for x, _ in flat):
        return add_number(graph, Fraction(0))
    product = graph.add((head("prod", tuple(e for _, e in flat)), *(x for x, _ in flat)))
    return product if scale == 1 else add_sum(graph, Fraction(0), [(product, scale)])


def _power_factors(graph: EGraph, child: int, e: Fraction) -> tuple[Fraction, list[Term]]:
    """``child ** e`` as a scalar times factors."""
    whole = e.denominator == 1
    c, inner = scaled(graph, child)
    if not whole:
        root = exact_root(c, e)
        c, inner, scale = (
            (Fraction(1), inner, root) if root is not None else (c, child, Fraction(1))
        )
    else:
        scale = Fraction(c**e.numerator)
    value: Fraction | None = graph.facts(inner).constant
    if value is not None and (value > 0 or (whole and (value != 0 or e > 0))):
        power = Fraction(value**e.numerator) if whole else exact_root(value, e)
        if power is not None:
            return scale * power, []
    flat: list[Term] = []
    parts = factors_of(graph, inner)
    if not all(_may_multiply(graph.facts(x), d, e) for x, d in parts):
        parts = [(inner, Fraction(1))]
    for x, d in parts:
        flat.append((x, d * e))
    return scale, flat


def _may_multiply(base: Facts, d: Fraction, e: Fraction) -> bool:
    """Whether ``(b ** d) ** e`` is ``b ** (d * e)``."""
    if base.nonnegative or (d.denominator == 1 and e.denominator == 1):
        return True
    # the root of an even power is a power of |b|, which is that of b if it is even
    return d.denominator == 1 and d % 2 == 0 and (d * e) % 2 == 0


def exact_root(c: Fraction, e: Fraction) -> Fraction | None:
    """``c ** e`` for a half-integer e if that is rational and c is positive."""
    if c <= 0 or e.denominator != 2:
        return None
    up, down = math.isqrt(c.numerator), math.isqrt(c.denominator)
    if up * up != c.numerator or down * down != c.denominator:
        return None
    return Fraction(Fraction(up, down) ** e.numerator)


def add_reduce(
    graph: EGraph, monoid: str, axes: Iterable[Axis], body: int, index_sort: str | None = None
) -> int:
    """A reduction; scalars come out of sums, nested sums (and other like reductions) become one."""
    axes = tuple(sorted(axes))
    if not axes:
        return graph.find(body)
    if monoid == "sum" and graph.facts(body).sort == REAL:
        c, inner = scaled(graph, body)
        if c != 1:
            reduced = add_reduce(graph, monoid, axes, inner)
            return add_sum(graph, Fraction(0), [(reduced, c)])
    founder = graph.founder[graph.find(body)]
    head = founder[0]
    if head[0] == "reduce" and head[1] == monoid and index_sort is None and head[3] is None:
        free = graph.facts(body).free
        if all(axis in free for axis in axes) and not set(axes) & set(head[2]):
            return add_reduce(graph, monoid, (*axes, *head[2]), graph.find(founder[1]))
    return graph.add((("reduce", monoid, axes, index_sort), body))


def add_operator(graph: EGraph, name: str, args: Iterable[int], parameter: Parameter = None) -> int:
    """A pointwise operator; arithmetic on reals becomes sums and products."""
    ids = list(args)
    if not ids or graph.facts(ids[-1]).sort != REAL:
        return graph.add((("op", name, parameter), *ids))
    one, half = Fraction(1), Fraction(1, 2)
    match name:
        case "add" | "sub":
            return add_sum(
                graph, Fraction(0), [(ids[0], one), (ids[1], one if name == "add" else -one)]
            )
        case "neg":
            return add_sum(graph, Fraction(0), [(ids[0], -one)])
        case "mul" | "div":
            return add_product(graph, [(ids[0], one), (ids[1], one if name == "mul" else -one)])
        case "integer_pow":
            assert isinstance(parameter, int)
            return add_product(graph, [(ids[0], Fraction(parameter))])
        case "sqrt" | "rsqrt":
            return add_product(graph, [(ids[0], half if name == "sqrt" else -half)])
        case "pow":
            e = graph.facts(ids[1]).constant
            if e is not None and (
                e.denominator == 1 or (e.denominator == 2 and graph.facts(ids[0]).nonnegative)
            ):
                return add_product(graph, [(ids[0], e)])
        case _:
            pass
    return graph.add((("op", name, parameter), *ids))
