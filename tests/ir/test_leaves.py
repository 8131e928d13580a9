"""Changed leaves: terms of any depth, shared terms once."""

from __future__ import annotations

import sys

from prism_jax.ir.leaves import Rewriting
from prism_jax.ir.nodes import Axis, Load, Node, Pointwise, Tensor, at


def chain(axis: Axis, tensor: Tensor, depth: int) -> Node:
    term: Node = Load(tensor, (at(axis),))
    for _ in range(depth):
        term = Pointwise("mul", (term, term))  # a tree of 2 ** depth leaves, a chain if shared
    return term


def test_terms_of_any_depth() -> None:
    old, new = Axis("i", 4), Axis("i", 6)
    x, y = Tensor("x", (4,), "float32"), Tensor("x", (6,), "float32")
    depth = 2 * sys.getrecursionlimit()
    rewriting = Rewriting(lambda axis: new if axis == old else axis, lambda _, __: y)
    found = rewriting.node(chain(old, x, depth))
    assert found is chain(new, y, depth)
    assert rewriting.node(chain(old, x, depth)) is found


def test_nothing_to_change_gives_the_very_same_term() -> None:
    term = chain(Axis("i", 4), Tensor("x", (4,), "float32"), 8)
    assert Rewriting().node(term) is term
