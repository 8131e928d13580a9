"""Terms out of the e-graph: one chosen option per class becomes an ir node.

In: which option each class uses. Out: the user's own nodes where the choice is the user's and
nothing below changed; otherwise sums, products and reductions written with the operators of the
table: small factors first (a scale of a row is multiplied into another scale of that row before it
meets the matrix), quotients as one division, half powers as `sqrt` and `rsqrt`, contractions as a
product of two operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from prism_jax.egraph.core import ENode
from prism_jax.egraph.cost import split
from prism_jax.egraph.decisions import extent
from prism_jax.ir.nodes import REAL, Const, Iota, Node, Pointwise, Precision, Reduce

Factor = tuple[Node, Fraction]


@dataclass(frozen=True, eq=False)
class Option:
    """One way to compute a class from others. `user` is a node of the program; otherwise `node` is
    an e-node.

    `factors` are the exponents of the children if this is a sum over axes of their product;
    `origins` names the rules that made it, none if it was there from the start.
    """

    children: tuple[int, ...]
    origins: tuple[str, ...] = ()
    node: ENode | None = None
    user: Node | None = None
    factors: tuple[Fraction, ...] | None = None


def build(option: Option, children: Sequence[Node], precision: Precision | None) -> Node:
    """The ir node of an option, given those of its children."""
    if option.user is not None:
        return _user(option, children)
    assert option.node is not None
    head = option.node[0]
    match head[0]:
        case "load":
            return head[1]
        case "iota":
            return Iota(head[1], head[2])
        case "const":
            return Const(head[1], head[2])
        case "op":
            return Pointwise(head[1], tuple(children), head[2])
        case "sum":
            return _sum(head[1], list(zip(children, head[2], strict=True)))
        case "prod":
            return product(list(zip(children, head[1], strict=True)))
        case _:
            _, monoid, axes, index_sort = head
            body = children[0]
            if option.factors is not None:
                body = _contracted(list(zip(children, option.factors, strict=True)))
            record = precision if monoid == "sum" else None
            return Reduce(monoid, axes, body, record, index_sort)


def multiplied(node: Node) -> list[Node]:
    """The leaves of a tree of multiplications."""
    if isinstance(node, Pointwise) and node.op == "mul":
        return [leaf for arg in node.args for leaf in multiplied(arg)]
    return [node]


def _user(option: Option, children: Sequence[Node]) -> Node:
    node = option.user
    if isinstance(node, Pointwise):
        return Pointwise(node.op, tuple(children), node.parameter)
    if isinstance(node, Reduce):
        body = children[0]
        if option.factors is not None:
            rest = iter(children)
            body = _replace_leaves(node.body, lambda: next(rest))
        return Reduce(node.monoid, node.axes, body, node.precision, node.index_sort)
    assert node is not None
    return node


def _replace_leaves(node: Node, leaf: Callable[[], Node]) -> Node:
    if isinstance(node, Pointwise) and node.op == "mul":
        return Pointwise(
            "mul", tuple(_replace_leaves(arg, leaf) for arg in node.args), node.parameter
        )
    return leaf()


def _number(value: Fraction) -> Const:
    return Const(float(value), REAL)


def _narrow_first(nodes: list[Node]) -> list[Node]:
    return [
        n
        for _, n in sorted(
            enumerate(nodes), key=lambda x: (extent(frozenset(x[1].axes_free)), x[0])
        )
    ]


def _chain(op: str, nodes: Sequence[Node]) -> Node:
    result = nodes[0]
    for node in nodes[1:]:
        result = Pointwise(op, (result, node))
    return result


def _sum(c0: Fraction, terms: list[tuple[Node, Fraction]]) -> Node:
    """Positive terms, then negative ones; narrow terms are added to each other first."""
    plus = _narrow_first([_scaled(x, c) for x, c in terms if c >= 0])
    minus = _narrow_first([_scaled(x, -c) for x, c in terms if c < 0])
    if c0 > 0 or not terms:
        plus.insert(0, _number(c0))
    elif c0 < 0:
        minus.insert(0, _number(-c0))
    if not plus:
        return Pointwise("neg", (_chain("add", minus),))
    if not minus:
        return _chain("add", plus)
    # a - b - c rather than a - (b + c): the same work, and what the user most often wrote
    return _chain("sub", [_chain("add", plus), *minus])


def _scaled(x: Node, c: Fraction) -> Node:
    return x if c == 1 else Pointwise("mul", (x, _number(c)))


def product(factors: list[Factor]) -> Node:
    """A product of powers."""
    up = _narrow_first([_power(x, e) for x, e in factors if e > 0 or e.denominator > 1])
    down = _narrow_first([_power(x, -e) for x, e in factors if e < 0 and e.denominator == 1])
    if not down:
        return _chain("mul", up) if up else _number(Fraction(1))
    return Pointwise(
        "div", (_chain("mul", up) if up else _number(Fraction(1)), _chain("mul", down))
    )


def _power(x: Node, e: Fraction) -> Node:
    if e == 1:
        return x
    if e.denominator == 1:
        if e == 2:
            return Pointwise("mul", (x, x))
        return Pointwise("integer_pow", (x,), int(e))
    if abs(e.numerator) == 1 and e.denominator == 2:
        return Pointwise("sqrt" if e > 0 else "rsqrt", (x,))
    root = Pointwise("sqrt" if e > 0 else "rsqrt", (x,))
    return (
        _power(root, abs(Fraction(e.numerator)))
        if e.denominator == 2
        else Pointwise("pow", (x, _number(e)))
    )


def _contracted(factors: list[Factor]) -> Node:
    """The body of a contraction: two operands, each a product, as a matrix unit takes them."""
    if len(factors) == 1 and factors[0][1] == 2:
        return Pointwise("mul", (factors[0][0], factors[0][0]))
    left, right = split([frozenset(x.axes_free) for x, _ in factors])
    sides = [product([factors[n] for n in side]) for side in (left, right) if side]
    return _chain("mul", sides)
