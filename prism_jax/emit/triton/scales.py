"""Numbers by which whole rows or columns of a matrix product are scaled: where they are applied.

In: a kernel's terms, the sides of a product. Out: which rows' scales a maximum and an exponential
can take over (`takers`), and a product with scales moved into operands (`scaled`).

A scale r[i] of a product p[i, j] = sum_k x[i, k] y[k, j] costs a multiplication for each element of
p. Two forms cost less:

* max_j r p = r max_j p for a positive r, and exp(r p - m) is 2^(p (r log2 e) - m log2 e), one
  multiply-add: the scale costs nothing for each element, and rounds in float32 only;
* (r x) y, where x is computed in fewer loops than p and rounded to the operands' dtype anyway.

A third, (r x) y in each step, takes fewer instructions but lost on an H100, by 4 to 20 % for all of
12 tiles of attention with normalised keys: the operand goes through registers on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from prism_jax.ir.nodes import REAL, Axis, Const, Load, Node, Pointwise, Reduce
from prism_jax.ir.product import Sides, movable
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, Kernel
from prism_jax.ir.term_ranges import positive

if TYPE_CHECKING:
    from prism_jax.emit.triton.spans import Layout
    from prism_jax.emit.triton.tiles import Env, Tiles

__all__ = ["Factored", "factored", "placed", "scaled", "taken", "takers"]


def takers(kernel: Kernel, *, cut: bool) -> Mapping[Node, frozenset[Axis]]:
    """For every term that only maxima, minima and exponentials of differences use, the axes that
    all of them keep: a positive factor with no other axis is theirs to take. `cut`: most steps of
    loops with a mask are written without it.
    """
    users: dict[Node, list[Node | Accumulator | None]] = {}
    for loop in kernel.all_loops:
        for accumulator in loop.accumulators:
            users.setdefault(accumulator.summand, []).append(accumulator)
            if accumulator.rescale is not None:
                users.setdefault(accumulator.rescale, []).append(None)
    for store in kernel.all_stores:
        users.setdefault(store.value, []).append(None)
    nodes = list(walk(kernel.roots))
    for node in nodes:
        for child in dict.fromkeys(node.children):
            users.setdefault(child, []).append(node)
    found: dict[Node, frozenset[Axis]] = {}
    for node in reversed(nodes):  # users before what they use
        kept = [_kept(node, user, users, found, cut) for user in users.get(node, [None])]
        axes = frozenset.intersection(*kept)
        if axes and node.sort == REAL:
            found[node] = axes
    return found


def _kept(
    node: Node,
    user: Node | Accumulator | None,
    users: Mapping[Node, Sequence[Node | Accumulator | None]],
    found: Mapping[Node, frozenset[Axis]],
    cut: bool,
) -> frozenset[Axis]:
    match user:
        case Accumulator(monoid="max" | "min"):
            return frozenset(user.axes)
        case Reduce(monoid="max" | "min"):
            return frozenset(user.axes_free)
        case Pointwise(op="sub", args=(left, right)) if left is node and right is not node:
            fewer = set(right.axes_free) < set(node.axes_free)
            exponents = all(isinstance(u, Pointwise) and u.op == "exp" for u in users[user])
            return frozenset(right.axes_free) if fewer and exponents else frozenset()
        case Pointwise(op="mul", args=(left, right)) if left is not right:
            other = right if left is node else left
            return found.get(user, frozenset()) if positive(other) else frozenset()
        case Pointwise(op="div", args=(left, Const() as right)) if left is node:
            return found.get(user, frozenset()) if positive(right) else frozenset()
        case Pointwise(op="where", args=(_, value, Const())) if cut and value is node:
            return found.get(user, frozenset())
        case _:
            return frozenset()


@dataclass(frozen=True)
class Factored:
    """A term as `number` * the product of `rows` * `node`, with `number` and `rows` positive."""

    node: Node
    number: float = 1.0
    rows: tuple[Node, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether nothing was factored out."""
        return self.number == 1.0 and not self.rows


def factored(tiles: Tiles, node: Node, env: Env) -> Factored:
    """The term without its positive constants, and without the scales that its users take."""
    found = Factored(tiles.resolved(node))
    while True:
        node = found.node
        if isinstance(node, Reduce):
            return _product_factored(tiles, found, node, env)
        if not (isinstance(node, Pointwise) and node.op in ("mul", "div")):
            return found
        left, right = node.args
        if node.op == "mul" and not _comes_off(tiles, node, right):
            left, right = right, left
        if not _comes_off(tiles, node, right):
            return found
        number, rows = found.number, found.rows
        if isinstance(right, Const):
            value = float(right.value)
            number = number * value if node.op == "mul" else number / value
        elif node.op == "mul":
            rows = (*rows, right)
        else:
            return found
        found = Factored(tiles.resolved(left), number, rows)


def taken(layout: Layout, node: Node, factor: Node) -> bool:
    """Whether the users of `node` take a factor of it: each row has an element, so that a maximum
    is no infinity that stands for none.
    """
    kept = layout.takers.get(node, frozenset())
    own = frozenset(factor.axes_free)
    return not isinstance(factor, Const) and own <= kept and positive(factor)


def _comes_off(tiles: Tiles, node: Node, factor: Node) -> bool:
    if isinstance(factor, Const):
        return 0.0 < float(factor.value) < math.inf
    return taken(tiles.layout, node, factor)


def _product_factored(tiles: Tiles, found: Factored, node: Reduce, env: Env) -> Factored:
    """The same for a matrix product: the scales of its result that come off."""
    layout = tiles.layout
    where = {a: s.key for a, s in env.items() if a not in node.axes}
    product = layout.products.get(layout.site(node, node.body.axes_free, where))
    if product is None:
        return found
    off = [f for f in product.rest if not isinstance(f, Const) and _comes_off(tiles, node, f)]
    if not off:
        return found
    kept = [f for f in product.rest if f not in off]
    body, *others = (*product.left, *product.right, *kept)
    for other in others:
        body = Pointwise("mul", (body, other))
    bare = Reduce(node.monoid, node.axes, body, node.precision, node.index_sort)
    site = layout.site(bare, body.axes_free, where)
    layout.products[site] = replace(product, rest=tuple(kept))
    rows = tuple(f for f in product.rest if f in off)
    return Factored(bare, found.number, (*found.rows, *rows))


Work: TypeAlias = Callable[[Sequence[Axis]], tuple[int, int]]
"""Of something with these axes: how deep in loops it is computed, and its elements."""


def placed(found: Sides, ignored: frozenset[Axis], work: Work) -> Sides:
    """The product with the factors that only summed axes have on the side where they cost least: an
    operand that fewer loops compute, or the smaller one of two that are loaded. `ignored` as for
    `sides`.
    """
    shared = frozenset((*found.batch, *found.k)) | ignored
    both = [list(found.left), list(found.right)]
    loose = [[n for n in side if frozenset(n.axes_free) <= shared] for side in both]
    costs = [work(axes) for axes in _axes(found)]
    loaded = all(_loaded([n for n in both[s] if n not in loose[s]]) for s in (0, 1))
    for here, there in ((0, 1), (1, 0)):
        less = costs[there] < costs[here] if loaded else costs[there][0] < costs[here][0]
        for node in loose[here] if less else ():
            left = list(both[here])
            left.remove(node)
            if frozenset(found.k) <= frozenset(a for n in left for a in n.axes_free):
                both[here] = left
                both[there].append(node)
    return replace(found, left=tuple(both[0]), right=tuple(both[1]))


def scaled(found: Sides, ignored: frozenset[Axis], work: Work) -> Sides:
    """The product with scales of its result moved into operands that fewer loops compute and that
    are rounded anyway: less often out of range with their scales than without. `ignored` as for
    `sides`.
    """
    deep = work((*found.batch, *found.m, *found.n, *found.k))[0]
    for node, left in movable(found, ignored):
        side = found.left if left else found.right
        if _loaded(side) or work(_axes(found)[0 if left else 1])[0] >= deep:
            continue
        at = found.rest.index(node)
        rest = (*found.rest[:at], *found.rest[at + 1 :])
        if left:
            found = replace(found, left=(*found.left, node), rest=rest)
        else:
            found = replace(found, right=(*found.right, node), rest=rest)
    return found


def _axes(found: Sides) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    return (*found.batch, *found.m, *found.k), (*found.batch, *found.n, *found.k)


def _loaded(side: Sequence[Node]) -> bool:
    return len(side) == 1 and isinstance(side[0], Load)
