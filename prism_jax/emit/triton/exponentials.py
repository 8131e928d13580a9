"""exp as exp2, which is what the hardware computes, with constant factors folded into one.

In: an `exp` node. Out: its tile. exp(c * x) is exp2((c * log2 e) * x): one instruction less for
each element, at the price of rounding a large argument once more; used where the inputs are narrow
floats anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_jax.ir.nodes import Pointwise

if TYPE_CHECKING:
    from prism_jax.emit.triton.tiles import Env, Tiles, Value

__all__ = ["exponential"]


def exponential(tiles: Tiles, node: Pointwise, env: Env) -> Value:
    """exp(c * x) as exp2((c * log2 e) * x); of a difference, each term is scaled before it
    spreads, so that one multiply-add is left for each element.
    """
    log2e = 1.4426950408889634
    argument, factor = tiles.factored(node.args[0])
    factor *= log2e
    if isinstance(argument, Pointwise) and argument.op == "sub":
        inner, scale = tiles.factored(argument.args[0])
        left, right = tiles.number(inner, env), tiles.number(argument.args[1], env)
        if len(right.dims) < len(left.dims):
            scaled = _scaled(tiles, right, factor)
            dims = tiles.sorted((*left.dims, *right.dims))
            product = f"{tiles.align(left, dims)} * {scale * factor!r}"
            text = f"tl.exp2({product} - {tiles.align(scaled, dims)})"
            depth = max(left.depth, right.depth)
            return tiles.assign("exp", text, dims, tiles.compute, depth)
    value = tiles.number(argument, env)
    text = f"tl.exp2({value.text} * {factor!r})"
    return tiles.assign("exp", text, value.dims, tiles.compute, value.depth)


def _scaled(tiles: Tiles, value: Value, factor: float) -> Value:
    """value * factor, once."""
    key = ("scaled", value.text, factor)
    found = tiles.scope.find(key)
    if found is None:
        text = f"{value.text} * {factor!r}"
        found = tiles.assign(f"{value.text}_log2", text, value.dims, tiles.compute, value.depth)
        tiles.scope.at(value.depth).know(key, found)
    return found
