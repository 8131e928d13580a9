"""Summands at running values: how far a stabiliser has moved, and what a step adds while the
running value is still its monoid's identity.

In: terms over the carried values of a loop. Out: terms (see `cascade` for what they are parts of).
"""

from __future__ import annotations

from prism_jax.explore.cascade import always_finite
from prism_jax.ir.nodes import Carried, Const, Node, Pointwise, Reduce
from prism_jax.ir.ops import MONOIDS
from prism_jax.ir.program import contents

__all__ = ["difference", "while_live"]


def difference(new: Node, old: Node) -> Node:
    """new - old; for negated terms the difference of what is negated."""
    pair = (new, old)
    if all(isinstance(t, Pointwise) and t.op == "neg" for t in pair):
        pair = (old.children[0], new.children[0])
    return Pointwise("sub", pair)


def while_live(summand: Node, monoid: str, running: list[tuple[Reduce, Carried]]) -> Node:
    """The summand, or the identity while a running maximum is still at its own: exp(-inf - -inf) is
    not a number.

    The test is for the identity, not for finiteness, so that NaN and +inf propagate as in the
    user's program. Of a product only the factor that needs it is guarded, so that a matrix product
    stays one.
    """
    for reduction, value in running:
        if not always_finite(reduction.body):
            start = Const(MONOIDS[reduction.monoid].identity(value.sort), value.sort)
            summand = _guarded(summand, Pointwise("ne", (value, start)), value, monoid)
    return summand


def _guarded(summand: Node, alive: Node, value: Carried, monoid: str) -> Node:
    if monoid == "sum" and isinstance(summand, Pointwise) and summand.op == "mul":
        touched = [value in contents(factor).carried for factor in summand.args]
        if sum(touched) == 1:
            args = (
                _guarded(f, alive, value, monoid) if t else f
                for f, t in zip(summand.args, touched, strict=True)
            )
            return Pointwise("mul", tuple(args))
    neutral = Const(MONOIDS[monoid].identity(summand.sort), summand.sort)
    return Pointwise("where", (alive, summand, neutral))
