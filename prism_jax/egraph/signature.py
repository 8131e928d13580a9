"""What a form of a program *is*, up to notation: two alternatives with one signature are the same
form.

Sums are compared as linear combinations and products as products of powers, so `a + b` and `b + a`,
`x / 4` and `0.25 * x` agree; the two operands of a contraction are kept apart, so scaling the left
matrix and scaling the right one are different forms.

>>> from prism_jax.ir.nodes import Axis, Const, Load, Pointwise, Tensor, at
>>> x = Load(Tensor("x", (4,), "float32"), (at(Axis("i", 4)),))
>>> of([Pointwise("div", (x, Const(4.0)))]) == of([Pointwise("mul", (Const(0.25), x))])
True
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from prism_jax.ir.nodes import REAL, Const, Node, Pointwise, Reduce
from prism_jax.ir.ops import OPS
from prism_jax.ir.program import walk

Pairs = tuple[tuple[str, Fraction], ...]
ONE = Fraction(1)


@dataclass(frozen=True)
class _Value:
    """A value three ways: `c0 + sum(c * term)`, `scale * product(atom ** e)`, and its name."""

    c0: Fraction
    terms: Pairs
    scale: Fraction
    atoms: Pairs

    @property
    def name(self) -> str:
        if self.c0 == 0 and len(self.terms) == 1 and self.terms[0][1] == 1:
            return self.terms[0][0]
        return _hash("sum", self.c0, self.terms)


def of(roots: Iterable[Node]) -> str:
    """The signature of some outputs together."""
    roots = list(roots)
    reader = _Reader()
    for node in walk(roots):
        reader.values[node] = reader.read(node)
    return _hash(*[reader.values[root].name for root in roots])


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(_text, parts)).encode()).hexdigest()[:24]


def _text(part: object) -> str:
    """Numbers to twelve digits: `x / c` and `x * (1 / c)` differ in the last bits of the constant
    only.
    """
    if isinstance(part, Fraction):
        return f"{float(part):.12g}"
    return ",".join(map(_text, part)) if isinstance(part, tuple) else str(part)


def _collected(pairs: Iterable[tuple[str, Fraction]]) -> Pairs:
    total: dict[str, Fraction] = {}
    for name, value in pairs:
        total[name] = total.get(name, Fraction(0)) + value
    return tuple(sorted((n, v) for n, v in total.items() if v))


class _Reader:
    def __init__(self) -> None:
        self.values: dict[Node, _Value] = {}
        self._products: dict[str, Pairs] = {}
        self._sums: dict[str, tuple[Fraction, Pairs]] = {}

    def read(self, node: Node) -> _Value:
        if isinstance(node, Const) and node.sort_ == REAL and math.isfinite(node.value):
            return self._sum(Fraction(node.value), ())
        if isinstance(node, Pointwise) and node.sort == REAL:
            if node.op in ("add", "sub"):
                a, b = (self.values[arg] for arg in node.args)
                sign = 1 if node.op == "add" else -1
                terms = _collected([*a.terms, *((n, sign * c) for n, c in b.terms)])
                return self._sum(a.c0 + sign * b.c0, terms)
            exponents = _exponents(node)
            if exponents is not None:
                return self._product(node, exponents)
        return self._atom(self._name(node))

    def _sum(self, c0: Fraction, terms: Pairs) -> _Value:
        if not terms:
            return _Value(c0, (), c0, ())
        if c0 == 0 and len(terms) == 1:
            name, c = terms[0]
            return _Value(c0, terms, c, self._products.get(name, ((name, ONE),)))
        lead = terms[0][1]  # a sum as a factor is that sum with leading coefficient one
        unit = c0 / lead, tuple((n, c / lead) for n, c in terms)
        name = _hash("sum", *unit)
        self._sums[name] = unit
        return _Value(c0, terms, lead, ((name, ONE),))

    def _product(self, node: Pointwise, exponents: list[Fraction]) -> _Value:
        scale, pairs = Fraction(-1 if node.op == "neg" else 1), list[tuple[str, Fraction]]()
        for arg, e in zip(node.args, exponents, strict=True):
            value = self.values[arg]
            if value.scale == 0 and e < 0:
                return self._atom(_hash(node.op, *(self.values[a].name for a in node.args)))
            scale *= value.scale**e.numerator
            pairs += [(name, d * e) for name, d in value.atoms]
        atoms = _collected(pairs)
        if not atoms or scale == 0:
            return self._sum(scale, ())
        if len(atoms) == 1 and atoms[0][1] == 1:
            name = atoms[0][0]
            if name in self._sums:
                c0, terms = self._sums[name]
                scaled = tuple((n, c * scale) for n, c in terms)
                return _Value(c0 * scale, scaled, scale, atoms)
        else:
            name = _hash("product", atoms)
            self._products[name] = atoms
        return _Value(Fraction(0), ((name, scale),), scale, atoms)

    @staticmethod
    def _atom(name: str) -> _Value:
        return _Value(Fraction(0), ((name, ONE),), ONE, ((name, ONE),))

    def _name(self, node: Node) -> str:
        if isinstance(node, Reduce):
            body = node.body
            if node.monoid == "sum" and isinstance(body, Pointwise) and body.op == "mul":
                operands = sorted(self.values[arg].name for arg in body.args)
                return _hash("contraction", node.axes, operands)
            return _hash(node.monoid, node.axes, node.index_sort, self.values[body].name)
        if isinstance(node, Pointwise):
            args = [self.values[arg].name for arg in node.args]
            args = sorted(args) if OPS[node.op].commutative else args
            return _hash(node.op, node.parameter, *args)
        return node.digest


def _exponents(node: Pointwise) -> list[Fraction] | None:
    """The powers that an operator multiplies, if it does; roots stand for themselves."""
    if node.op == "integer_pow":
        return [Fraction(str(node.parameter))]
    return {"mul": [ONE, ONE], "div": [ONE, -ONE], "neg": [ONE]}.get(node.op)
