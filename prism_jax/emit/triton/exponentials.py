"""exp as exp2, which is what the hardware computes, with constant factors folded into one.

In: an `exp` node. Out: its tile. exp(c * x) is exp2((c * log2 e) * x): one instruction less for
each element, at the price of rounding a large argument once more; used where the inputs are narrow
floats anyway. So is a positive factor that a row of the argument has in common (`scales`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prism_jax.emit.triton import contractions, scales
from prism_jax.ir.nodes import Carried, Const, Node, Pointwise

if TYPE_CHECKING:
    from prism_jax.emit.triton.tiles import Env, Tiles, Value

__all__ = ["exponential", "guarded"]

LOG2_E = 1.4426950408889634


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
    that one multiply-add is left for each element. Where `guard` is false y is infinite.
    """
    factor *= LOG2_E
    inner = scales.factored(tiles, node.args[0], env)
    left, right = tiles.number(inner.node, env), tiles.number(node.args[1], env)
    if len(right.dims) >= len(left.dims):
        return None
    scaled = _scaled(tiles, right, factor)
    if guard is not None:
        scaled = _infinite(tiles, scaled, tiles.number(guard, env))
    dims = tiles.sorted((*left.dims, *right.dims))
    times = repr(inner.number * factor)
    if inner.rows:
        first, *rest = inner.rows
        rows = contractions.times_rest(tiles, tiles.number(first, env), rest, env)
        times = tiles.align(_scaled(tiles, rows, inner.number * factor), dims)
    text = f"tl.exp2({tiles.align(left, dims)} * {times} - {tiles.align(scaled, dims)})"
    return tiles.assign("exp", text, dims, tiles.compute, max(left.depth, right.depth))


def _infinite(tiles: Tiles, value: Value, guard: Value) -> Value:
    """The value, or infinity where the guard is false, once."""
    key = ("infinite", value.text, guard.text)
    found = tiles.scope.find(key)
    if found is None:
        shown = tiles.align(guard, value.dims)
        text = f'tl.where({shown}, {value.text}, float("inf"))'
        found = tiles.assign(f"{value.text}_safe", text, value.dims, tiles.compute, value.depth)
        tiles.scope.at(value.depth).know(key, found)
    return found


def _scaled(tiles: Tiles, value: Value, factor: float) -> Value:
    """value * factor, once."""
    key = ("scaled", value.text, factor)
    found = tiles.scope.find(key)
    if found is None:
        text = f"{value.text} * {factor!r}"
        found = tiles.assign(f"{value.text}_log2", text, value.dims, tiles.compute, value.depth)
        tiles.scope.at(value.depth).know(key, found)
    return found
