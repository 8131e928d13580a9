"""The rule for cascaded reductions: when a reduction may share a loop with the reductions that it
depends on.

Given a reduction (+)_k f whose summand mentions earlier reductions r over the same axis k, write

    f(k, r) = E(r) (x) S(r) (x) h(k)            (one such term, or a short sum of them)

where S is a product of exponentials exp(u(r)) and E is everything else that depends on r alone. The
*stabiliser* S has to be carried (exp(s - max) overflows without it), so the accumulator is rescaled
by S(r_new) / S(r_old), computed as one exponential of a difference; E (a division by a norm, a
mean) is applied once, after the loop. For max and min, (x) is addition.

Nothing here knows softmax, log-sum-exp or attention: they are instances (design, section 6.3).

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Reduce, Tensor, at
>>> i, k = Axis("i", 4), Axis("k", 8)
>>> s = Load(Tensor("s", (4, 8), "float32"), (at(i), at(k)))
>>> top = Reduce("max", (k,), s)
>>> [term] = cascade("sum", Pointwise("exp", (Pointwise("sub", (s, top)),)), k, (top,))
>>> term.stabiliser is Pointwise("neg", (top,)), term.exponent is s, term.outside is None
(True, True, True)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from prism_jax.ir.nodes import REAL, Axis, Const, Node, Pointwise, Reduce
from prism_jax.ir.program import contents, walk

MAX_TERMS = 4


@dataclass(frozen=True)
class Term:
    """One term E(r) (x) exp(u(r)) (x) h(k) exp(v(k)); for max and min the term is u(r) + h(k). None
    stands for 1, or 0 in an exponent.

    `outside`: E, applied once after the loop. `stabiliser`: u, what has to be carried. `varying`: h
    and `exponent`: v, which mention no earlier reduction. u and v are kept apart from h so that
    they can meet in one exponential, exp(v + u), which cannot overflow where exp(v) would.
    """

    outside: Node | None
    stabiliser: Node | None
    varying: Node | None
    exponent: Node | None = None

    def summand(self) -> Node:
        """h(k) exp(v(k) + u(r))."""
        total = _plus(self.exponent, self.stabiliser)
        return _times(self.varying, total and Pointwise("exp", (total,))) or Const(1.0)


class _NotSeparable(Exception):
    """The summand does not factor into parts that depend on r alone and on k alone."""


def cascade(
    monoid: str, summand: Node, axis: Axis, earlier: tuple[Reduce, ...]
) -> tuple[Term, ...] | None:
    """The terms of the summand, or None where the rule does not apply.

    `earlier` are reductions over `axis` that the summand mentions. Sums need a product structure,
    max and min an additive one; other monoids are refused. A stabiliser that depends on a maximum
    is legal only if the summand vanishes wherever the maximum's own body is at its identity; see
    `_neutral_before`.
    """
    splitter = _Splitter(axis, frozenset(earlier))
    try:
        if monoid in ("max", "min"):
            constant, varying = splitter.additive(summand)
            if varying is None:
                return None
            return (Term(None, constant, varying),)
        if monoid != "sum" or summand.sort != REAL:
            return None
        parts = splitter.product(summand)
    except _NotSeparable:
        return None
    terms = tuple(part.term() for part in parts)
    return terms if all(_neutral_before(term, earlier) for term in terms) else None


@dataclass(frozen=True)
class _Product:
    """outside * exp(stabiliser) * varying * exp(exponent); None stands for a factor of 1 or an
    exponent of 0.
    """

    outside: Node | None = None
    stabiliser: Node | None = None
    varying: Node | None = None
    exponent: Node | None = None

    def term(self) -> Term:
        return Term(self.outside, self.stabiliser, self.varying, self.exponent)


def _times(a: Node | None, b: Node | None) -> Node | None:
    return b if a is None else a if b is None else Pointwise("mul", (a, b))


def _plus(a: Node | None, b: Node | None) -> Node | None:
    if a is not None and isinstance(b, Pointwise) and b.op == "neg":
        return Pointwise("sub", (a, b.args[0]))  # as users write it, so that equal terms are shared
    return b if a is None else a if b is None else Pointwise("add", (a, b))


def _over(a: Node | None, b: Node | None) -> Node | None:
    return a if b is None else Pointwise("div", (a or Const(1.0), b))


def _minus(a: Node | None, b: Node | None) -> Node | None:
    if b is None:
        return a
    return Pointwise("neg", (b,)) if a is None else Pointwise("sub", (a, b))


class _Splitter:
    """Splits terms into what depends on the earlier reductions (and not on k) and what depends on k
    (and not on them).
    """

    def __init__(self, axis: Axis, earlier: frozenset[Node]) -> None:
        self.axis = axis
        self.earlier = earlier
        self._mentions: dict[Node, bool] = {}

    def mentions(self, node: Node) -> bool:
        """Whether an earlier reduction occurs in the term."""
        if node in self.earlier:
            return True
        if node not in self._mentions:
            self._mentions[node] = any(self.mentions(c) for c in node.children)
        return self._mentions[node]

    def fixed(self, node: Node) -> bool:
        return self.axis not in node.axes_free

    def additive(self, node: Node) -> tuple[Node | None, Node | None]:
        """(u, v) with node = u + v, u free of k, v free of the earlier reductions; None is 0."""
        if not self.mentions(node):
            return (None, node)
        if self.fixed(node):
            return (node, None)
        if isinstance(node, Pointwise):
            if node.op in ("add", "sub"):
                (u, v), (x, y) = map(self.additive, node.args)
                join = _plus if node.op == "add" else _minus
                return join(u, x), join(v, y)
            if node.op == "neg":
                u, v = self.additive(node.args[0])
                return _minus(None, u), _minus(None, v)
            if node.op == "mul":
                for scale, other in (node.args, node.args[::-1]):
                    if self.fixed(scale) and not self.mentions(scale):
                        u, v = self.additive(other)
                        return _scale(u, scale), _scale(v, scale)
            if node.op == "div" and self.fixed(node.args[1]) and not self.mentions(node.args[1]):
                u, v = self.additive(node.args[0])
                by = node.args[1]
                return u and Pointwise("div", (u, by)), v and Pointwise("div", (v, by))
        raise _NotSeparable

    def product(self, node: Node) -> list[_Product]:
        """The node as a short sum of products."""
        if not self.mentions(node):
            return [_Product(varying=node)]
        if isinstance(node, Pointwise) and node.op == "exp":
            u, v = self.additive(node.args[0])
            return [_Product(stabiliser=u, exponent=v)]
        if isinstance(node, Pointwise) and node.op == "exp2":
            log2 = Const(0.6931471805599453)
            u, v = self.additive(node.args[0])
            return [_Product(stabiliser=_scale(u, log2), exponent=_scale(v, log2))]
        if self.fixed(node):
            return [_Product(outside=node)]
        if isinstance(node, Pointwise):
            return self._pointwise(node)
        raise _NotSeparable

    def _pointwise(self, node: Pointwise) -> list[_Product]:
        if node.op == "mul":
            left, right = map(self.product, node.args)
            if len(left) * len(right) > MAX_TERMS:
                raise _NotSeparable
            return [_multiply(a, b) for a in left for b in right]
        if node.op == "div":
            [below] = self._one(node.args[1])
            return [_divide(a, below) for a in self.product(node.args[0])]
        if node.op in ("add", "sub"):
            left, right = map(self.product, node.args)
            if len(left) + len(right) > MAX_TERMS:
                raise _NotSeparable
            return left + (right if node.op == "add" else [_negate(p) for p in right])
        if node.op == "neg":
            return [_negate(p) for p in self.product(node.args[0])]
        if node.op == "integer_pow" and isinstance(node.parameter, int):
            parts = self.product(node.args[0])
            if len(parts) == 1:
                return [_power(parts[0], node.parameter)]
            if node.parameter == 2:
                return self.product(Pointwise("mul", (node.args[0], node.args[0])))
        if node.op == "abs":
            [part] = self._one(node.args[0])
            return [
                _Product(
                    _absolute(part.outside), part.stabiliser, _absolute(part.varying), part.exponent
                )
            ]
        if node.op == "where" and not self.mentions(node.args[0]):
            condition, yes, no = node.args
            chosen = [
                self._mask(p, condition, True) for p in self.product(yes) if yes != Const(0.0)
            ]
            chosen += [
                self._mask(p, condition, False) for p in self.product(no) if no != Const(0.0)
            ]
            if 0 < len(chosen) <= MAX_TERMS:
                return chosen
        raise _NotSeparable

    def _mask(self, part: _Product, condition: Node, keep: bool) -> _Product:
        """The part where the condition is `keep`, and 0 elsewhere: there the exponent is -inf, so
        that nothing overflows.
        """

        def masked(node: Node | None, elsewhere: float) -> Node:
            arms = (node or Const(1.0), Const(elsewhere))
            return Pointwise("where", (condition, *(arms if keep else arms[::-1])))

        exponent = None if part.exponent is None else masked(part.exponent, float("-inf"))
        return _Product(part.outside, part.stabiliser, masked(part.varying, 0.0), exponent)

    def _one(self, node: Node) -> list[_Product]:
        parts = self.product(node)
        if len(parts) != 1:
            raise _NotSeparable
        return parts


def _scale(node: Node | None, by: Node) -> Node | None:
    return None if node is None else Pointwise("mul", (node, by))


def _absolute(node: Node | None) -> Node | None:
    return None if node is None else Pointwise("abs", (node,))


def _multiply(a: _Product, b: _Product) -> _Product:
    return _Product(
        _times(a.outside, b.outside),
        _plus(a.stabiliser, b.stabiliser),
        _times(a.varying, b.varying),
        _plus(a.exponent, b.exponent),
    )


def _divide(a: _Product, b: _Product) -> _Product:
    return _Product(
        _over(a.outside, b.outside),
        _minus(a.stabiliser, b.stabiliser),
        _over(a.varying, b.varying),
        _minus(a.exponent, b.exponent),
    )


def _negate(a: _Product) -> _Product:
    return _Product(
        a.outside, a.stabiliser, Pointwise("neg", (a.varying or Const(1.0),)), a.exponent
    )


def _power(a: _Product, n: int) -> _Product:
    def raised(node: Node | None) -> Node | None:
        return None if node is None else Pointwise("integer_pow", (node,), n)

    scale = Const(float(n))
    return _Product(
        raised(a.outside), _scale(a.stabiliser, scale), raised(a.varying), _scale(a.exponent, scale)
    )


def _neutral_before(term: Term, earlier: Iterable[Reduce]) -> bool:
    """The obligation of the streaming form: while an earlier reduction is at its identity, every
    summand so far is neutral.

    For a stabiliser exp(u(r)) with r = max_k g(k): r at -inf means g = -inf everywhere so far, and
    the summand's own exponent must then be -inf too, which holds where g occurs in it positively,
    or where g can never be -inf. Reductions that are sums never start streaming: a signed prefix
    can be 0 by accident.
    """
    if term.stabiliser is None:
        return True
    for reduction in _reductions_in(term.stabiliser, frozenset(earlier)):
        if reduction.monoid == "max":
            if not (always_finite(reduction.body) or _grows_with(term.exponent, reduction.body)):
                return False
        elif reduction.monoid == "min":
            if not always_finite(reduction.body):
                return False
        else:
            return False
    return True


def _reductions_in(node: Node, earlier: frozenset[Reduce]) -> tuple[Reduce, ...]:
    return tuple(n for n in contents(node).reductions if n in earlier)


def _grows_with(exponent: Node | None, body: Node) -> bool:
    """Whether the exponent is body, or body times a positive number, plus other things."""
    if exponent is None:
        return False
    if exponent is body:
        return True
    if isinstance(exponent, Pointwise):
        if exponent.op == "where":
            nothing = Const(float("-inf"))
            return all(arm is nothing or _grows_with(arm, body) for arm in exponent.args[1:])
        if exponent.op == "add":
            return any(_grows_with(arg, body) for arg in exponent.args)
        if exponent.op == "sub":
            return _grows_with(exponent.args[0], body)
        if exponent.op in ("mul", "div"):
            first, second = exponent.args
            pairs = (
                [(first, second)] if exponent.op == "div" else [(first, second), (second, first)]
            )
            return any(
                isinstance(c, Const) and c.value > 0 and _grows_with(x, body) for x, c in pairs
            )
    return False


@functools.lru_cache(maxsize=8192)
def always_finite(node: Node) -> bool:
    """Whether the term is finite whenever every loaded number is: no infinite constant, and only
    operators that keep finite numbers finite (up to overflow).
    """
    kept = {
        "add",
        "sub",
        "mul",
        "neg",
        "abs",
        "max",
        "min",
        "where",
        "tanh",
        "logistic",
        "sin",
        "cos",
        "erf",
        "cast",
    }
    for one in walk([node]):
        if isinstance(one, Const) and one.sort == REAL and abs(float(one.value)) == float("inf"):
            return False
        if isinstance(one, Pointwise) and one.sort == REAL and one.op not in kept:
            if one.op == "div" and isinstance(one.args[1], Const) and one.args[1].value != 0:
                continue
            if one.op == "integer_pow" and isinstance(one.parameter, int) and one.parameter > 0:
                continue
            return False
        if isinstance(one, Reduce) and one.monoid not in ("sum", "prod", "max", "min"):
            return False
    return True
