"""exp as exp2, which is what the hardware computes, with constant factors folded into one.

In: an `exp` node. Out: its tile. exp(c * x) is exp2((c * log2 e) * x): one instruction less for
each element, at the price of rounding a large argument once more; used where the inputs are narrow
floats anyway. So is a positive factor that a row of the argument has in common (`scales`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from prism_jax.emit.triton import contractions, scales
from prism_jax.emit.triton.operators import literal
from prism_jax.ir.idle import FAR
from prism_jax.ir.nodes import Carried, Const, Load, Node, Pointwise, Reduce
from prism_jax.ir.product import product_of
from prism_jax.ir.term_ranges import range_of

if TYPE_CHECKING:
    from prism_jax.emit.triton.spans import Key
    from prism_jax.emit.triton.tiles import Env, Tiles, Value

__all__ = ["exponential", "guarded"]

LOG2_E = 1.4426950408889634
STEEP = 0.5
"""Neighbours among the float32 below -1e9 are 64 apart or more: at this slope in the exponent of 2
or a steeper one, what is below a maximum there has next to no weight.
"""

CLOSE = 2.0**17
"""Up to this number the product with log2(e) is rounded by less than 2^-7."""


def guarded(tiles: Tiles, node: Pointwise, env: Env) -> Value | None:
    """where(m != -inf, exp(x - m), 0), with m the running maximum of x, as exp(x - m') with m' = m
    or, where that is minus infinity, infinity: one choice for each m instead of each x.

    Where m is minus infinity so is every x, and exp(-inf - inf) is 0. None: the node is no such
    choice.
    """
    if node.op != "where":
        return None
    guard, value, other = node.args
    if not (isinstance(guard, Pointwise) and guard.op == "ne" and _is(guard.args[1], -math.inf)):
        return None
    if not (isinstance(value, Pointwise) and value.op == "exp" and _is(other, 0.0)):
        return None
    argument, top = value.args[0], guard.args[0]
    if not (isinstance(top, Carried) and top.phase == "new"):
        return None
    difference = Pointwise("sub", (tiles.maxima.get(top.accumulator, argument), top))
    return _difference(tiles, difference, 1.0, env, guard) if argument is difference else None


def _is(node: Node, number: float) -> bool:
    return isinstance(node, Const) and float(node.value) == number


def exponential(tiles: Tiles, node: Pointwise, env: Env) -> Value:
    """exp(c * x) as exp2((c * log2 e) * x)."""
    inner = scales.factored(tiles, node.args[0], env)
    argument, factor = inner.node, inner.number
    if isinstance(argument, Pointwise) and argument.op == "sub":
        found = _difference(tiles, argument, factor, env, None)
        if found is not None:
            return found
    value = tiles.number(argument, env)
    text = f"tl.exp2({value.text} * {factor * LOG2_E!r})"
    return tiles.assign("exp", text, value.dims, tiles.compute, value.depth)


def _difference(
    tiles: Tiles, node: Pointwise, factor: float, env: Env, guard: Pointwise | None
) -> Value | None:
    """exp(c * (x - y)), where y has fewer dimensions: each term is scaled before it spreads, so
    that one multiply-add is left for each element. Where `guard` is false y is infinite. None: the
    difference itself must be taken first.

    The multiply-add does not round x * c, so that x = y gives not 1 but 2 to the power of what y *
    c was rounded by: nothing for scores, which are sums of products; infinity for the -1e30 of a
    mask. Where x may be such a constant and y is its maximum, rows that are masked so far take 2 to
    the power of x - y, which has no such error. Nothing is known of the size of other loads.
    """
    factor *= LOG2_E
    whole, other = node.args
    masked, unknown = _reach(tiles.resolved(whole))
    if unknown or (masked and not _is_maximum(tiles, other, whole)):
        return None
    inner = scales.factored(tiles, whole, env)
    exact = not inner.rows and abs(math.frexp(inner.number)[0]) == 0.5
    if masked and not (exact and factor >= STEEP):
        return None
    left, right = tiles.number(inner.node, env), tiles.number(other, env)
    if len(right.dims) >= len(left.dims):
        return None
    dims = tiles.sorted((*left.dims, *right.dims))
    number = Const(inner.number * factor)
    scaled, slope = _scaled(tiles, right, factor), tiles.value(number, env)
    if inner.rows:
        first, *rest = inner.rows
        rows = contractions.times_rest(tiles, tiles.number(first, env), rest, env)
        slope = _scaled(tiles, rows, inner.number * factor)
    if masked:
        scaled, slope = _near(tiles, right, scaled, slope, inner.number)
    if guard is not None:
        scaled = _infinite(tiles, scaled, tiles.number(guard, env))
    text = f"{tiles.align(left, dims)} * {tiles.align(slope, dims)} - {tiles.align(scaled, dims)}"
    text = f"tl.exp2({text})"
    return tiles.assign("exp", text, dims, tiles.compute, max(left.depth, right.depth))


@lru_cache(maxsize=1024)
def _reach(node: Node) -> tuple[bool, bool]:
    """Whether a term may be a mask's constant, far below all scores, and whether it may be that or
    anything because of what it loads other than as factors of sums of products (and what bounds
    are known of), or because of another constant that is large.
    """
    stack, seen, masked = [node], set[Node](), False
    while stack:
        one = stack.pop()
        if one in seen:
            continue
        seen.add(one)
        found = range_of(one)
        if max(-found.low, found.high) <= CLOSE:
            continue
        far = isinstance(one, Const) and (one.value <= FAR or one.value == math.inf)
        if isinstance(one, Load) or (isinstance(one, Const) and not far):
            return True, True
        masked |= far and math.isfinite(found.low)
        product = isinstance(one, Reduce) and product_of(one.monoid, one.body, one.axes)
        if isinstance(one, Pointwise) and one.op == "where":
            stack.extend(one.args[1:])
        elif not product:
            stack.extend(one.children)
    return masked, False


def _is_maximum(tiles: Tiles, node: Node, of: Node) -> bool:
    if isinstance(node, Carried):
        return tiles.maxima.get(node.accumulator) is of
    return isinstance(node, Reduce) and node.monoid == "max" and node.body is of


def _near(
    tiles: Tiles, top: Value, scaled: Value, slope: Value, unscaled: float
) -> tuple[Value, Value]:
    """`scaled` and the factor of x; the maximum itself and what it is a maximum of in rows whose
    maximum is a mask's. `unscaled` is a power of two, so that x times it is not rounded.
    """
    low = f"({top.text} <= {FAR!r}) & ({top.text} > {literal(-math.inf)})"
    masked = _once(tiles, low, f"{top.text}_masked", top.dims, top.depth, "bool")
    text = f"tl.where({masked.text}, {top.text}, {scaled.text})"
    start = _once(tiles, text, scaled.text, top.dims, top.depth)
    dims, depth = tiles.sorted((*top.dims, *slope.dims)), max(top.depth, slope.depth)
    text = f"tl.where({tiles.align(masked, dims)}, {unscaled!r}, {tiles.align(slope, dims)})"
    return start, _once(tiles, text, "slope", dims, depth)


def _once(
    tiles: Tiles, text: str, wish: str, dims: tuple[Key, ...], depth: int, dtype: str = ""
) -> Value:
    """A name for `text`, a new one if it has none yet."""
    found = tiles.scope.find(("once", text))
    if found is None:
        found = tiles.assign(wish, text, dims, dtype or tiles.compute, depth)
        tiles.scope.at(depth).know(("once", text), found)
    return found


def _infinite(tiles: Tiles, value: Value, guard: Value) -> Value:
    """The value, or infinity where the guard is false, once."""
    shown = tiles.align(guard, value.dims)
    text = f"tl.where({shown}, {value.text}, {literal(math.inf)})"
    return _once(tiles, text, f"{value.text}_safe", value.dims, value.depth)


def _scaled(tiles: Tiles, value: Value, factor: float) -> Value:
    """value * factor, once."""
    text, wish = f"{value.text} * {factor!r}", f"{value.text}_log2"
    return _once(tiles, text, wish, value.dims, value.depth)
