"""Random instances of axioms as ir terms: how tests reach every row of the table."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from prism_jax.axioms import pattern as pt
from prism_jax.axioms.axiom import Axiom
from prism_jax.ir.nodes import Axis, Const, Node, Pointwise, Reduce
from tests.egraph.forms import add, div, load, mul, op

NUMBERS = (2.0, 0.5, -1.0, 3.0, -0.25)


class Instance:
    """Both sides of an axiom over fresh tensors; conditions hold by construction."""

    def __init__(self, axiom: Axiom, rng: np.random.Generator) -> None:
        self.axiom, self.rng = axiom, rng
        size = [int(n) for n in rng.integers(2, 7, 6)]
        self.free = [Axis("u", size[0]), Axis("v", size[1])]
        letters = [name for name, kind in axiom.kinds.items() if kind == "axes"]
        self.axes = {name: Axis(name, size[2 + n]) for n, name in enumerate(letters)}
        self.terms: dict[str, Node] = {}
        self.numbers: dict[str, float] = {}
        self.segments: dict[str, list[tuple[Node, float]]] = {}
        for name, kind in axiom.kinds.items():
            if kind == "term":
                self.terms[name] = self._term(name, name)
            elif kind == "number":
                self.numbers[name] = self._number(name)
            elif kind == "segment":
                count = int(rng.integers(1, 3))
                self.segments[name] = [
                    (self._term(name, f"{name}{n}"), self._weight(name)) for n in range(count)
                ]

    def _number(self, name: str) -> float:
        own = [c for c in self.axiom.conditions if c.subject == name]
        fitting = [v for v in NUMBERS if all(c.holds_number(Fraction(v)) for c in own)]
        return float(self.rng.choice(fitting))

    def _weight(self, name: str) -> float:
        return float(self.rng.choice(NUMBERS)) if name in self.axiom.sums else 1.0

    def _term(self, name: str, tensor: str) -> Node:
        """A load over random axes that the conditions allow, of the sign that they ask for."""
        own = [c for c in self.axiom.conditions if c.subject == name]
        barred = {c.axes for c in own if c.what == "not in"}
        options = [*self.free, *(a for n, a in self.axes.items() if n not in barred)]
        some = [a for a in options if self.rng.random() < 0.6]
        node = load(tensor, *some)
        if name == "cond":
            return Pointwise("lt", (node, Const(0.0)))
        signs = {c.what for c in own} & {">", ">=", "!="}
        if signs:
            node = op("abs", node)
        return add(node, 0.5) if signs & {">", "!="} else node

    def side(self, pattern: pt.Pattern) -> Node:
        """The ir term of one side."""
        match pattern:
            case pt.Var(name):
                return self.terms[name]
            case pt.Seg(name):
                pairs = self.segments[name]
                if name in self.axiom.sums:
                    return _fold("add", [mul(c, x) for x, c in pairs])
                return _fold("mul", [x for x, _ in pairs])
            case pt.Num():
                return Const(self._value(pattern))
            case pt.Sum(items):
                return _fold("add", [mul(self._value(c), self.side(x)) for c, x in items])
            case pt.Prod(items):
                return _fold("mul", [_power(self.side(x), self._value(e)) for x, e in items])
            case pt.Op(name, args):
                return op(name, *[self.side(x) for x in args])
            case pt.Red(monoid, names, body):
                inner = self.side(body)
                sort = "int32" if monoid.startswith("arg") else None
                return Reduce(monoid, tuple(self.axes[n] for n in names), inner, None, sort)

    def _value(self, number: pt.Num) -> float:
        value = float(number.value)
        for name in number.names:
            if name.startswith("size:"):
                size = self.axes[name[5:]].size
                assert isinstance(size, int)
                value *= size
            else:
                value *= self.numbers[name]
        return value


def _fold(name: str, nodes: list[Node]) -> Node:
    result = nodes[0] if nodes else Const(1.0)
    for node in nodes[1:]:
        result = op(name, result, node)
    return result


def _power(x: Node, e: float) -> Node:
    if e == 1:
        return x
    if abs(e) == 0.5:
        return op("sqrt" if e > 0 else "rsqrt", x)
    return div(1.0, _power(x, -e)) if e < 0 else op("integer_pow", x, parameter=int(e))
