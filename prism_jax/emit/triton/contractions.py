"""Sums of products as `tl.dot`.

In: the two sides of a product (`ir/product.py`), the spans of their axes, a precision record.
Out: a tile, or the text of an accumulation.

Invariants: operands have the record's operand dtype and are loaded in it, the sum is float32;
lanes outside a summed axis are zero on both sides, so that nothing that lies there, NaN included,
reaches the sum. What a loop loads as an operand of few rows is loaded for nothing else: Triton 3.6
would keep it in shared memory in an order that suits both uses, where all rows lie in the same
banks (measured: an RMSNorm and its product took 2.4 times as long as the product). Where float32
operands go through the matrix unit in one TF32 pass they are rounded first: it would cut them, and
a cut biases every sum of terms of one sign (kernel sums had ten times the error of XLA's, which
rounds).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prism_jax.emit.triton import access
from prism_jax.emit.triton.precision import DotPrecision, dot_precision
from prism_jax.emit.triton.spans import Key
from prism_jax.ir.nodes import Iota, Load, Node, Pointwise, Precision
from prism_jax.ir.program import walk

if TYPE_CHECKING:
    from prism_jax.emit.triton.tiles import Env, Tiles, Value
    from prism_jax.ir.product import Sides

__all__ = ["CHUNK", "accumulate", "dot", "times_rest", "too_long"]

LONGEST = 1024
"""Multiply-adds of one thread that are written out, where no matrix unit does them."""
CHUNK = 16
"""Elements of the summed axis in one piece of a longer product."""


def dot(tiles: Tiles, found: Sides, env: Env, precision: Precision | None, comment: str) -> Value:
    """The product as a tile of its own."""
    spans = tuple(env.get(a) for a in (*found.batch, *found.m, *found.k, *found.n))
    key = ("product", found.left, found.right, precision, spans)
    made = tiles.scope.find(key)  # the same product may be wanted with other scales
    if made is None:
        for factor in found.rest:  # before the product, which holds most of a block's registers
            tiles.number(factor, env)
        text, dims, depth, _ = _text(tiles, found, env, precision, None)
        made = tiles.assign("dot", text, dims, "float32", depth, comment)
        tiles.scope.at(depth).know(key, made)
    made = times_rest(tiles, made, found.rest, env)
    return tiles.permuted(made, tiles.sorted(made.dims))


def accumulate(
    tiles: Tiles,
    found: Sides,
    env: Env,
    precision: Precision | None,
    dims: tuple[Key, ...],
    base: str,
) -> str:
    """Text of `base` + the product, where `base` is the accumulator's tile with dimensions
    `dims`.
    """
    if not found.rest:
        text, _, _, fused = _text(tiles, found, env, precision, (dims, base))
        if fused:
            return text
    product = dot(tiles, found, env, precision, "the step's part")
    return f"{base} + {tiles.align(product, dims)}"


def too_long(tiles: Tiles, found: Sides, env: Env, precision: Precision | None) -> bool:
    """Whether the product is computed without the matrix unit and is too large to be written out,
    and whether it can be cut: its operands can be loaded piece by piece.
    """
    allowed = dot_precision(precision, tiles.compute)
    if allowed is None or allowed.input_precision != "ieee" or len(found.k) != 1 or found.rest:
        return False
    (axis,) = found.k
    if tiles.span(axis, env).key != ("held", axis.name) or found.batch:
        return False
    work = 1
    for key in tiles.dims((*found.m, *found.k, *found.n), env):
        work *= tiles.width(key)
    if work <= LONGEST * tiles.threads or int(axis.size) <= CHUNK:
        return False
    nodes = walk((*found.left, *found.right))
    return all(axis not in n.axes_free or isinstance(n, Load | Iota | Pointwise) for n in nodes)


def times_rest(tiles: Tiles, value: Value, rest: Sequence[Node], env: Env) -> Value:
    """The value times factors that have no summed axis."""
    for node in rest:
        factor = tiles.number(node, env)
        dims = tiles.sorted((*value.dims, *factor.dims))
        value = tiles.permuted(value, tuple(k for k in dims if k in value.dims))
        text = f"{tiles.align(value, dims)} * {tiles.align(factor, dims)}"
        value = tiles.assign("mul", text, dims, "float32", max(value.depth, factor.depth))
    return value


def _text(
    tiles: Tiles,
    found: Sides,
    env: Env,
    precision: Precision | None,
    target: tuple[tuple[Key, ...], str] | None,
) -> tuple[str, tuple[Key, ...], int, bool]:
    """(text, its dimensions, depth, whether `target` was accumulated into)."""
    allowed = dot_precision(precision, tiles.compute)
    assert allowed is not None
    if (
        tiles.dims(found.m, env)[0]
        != tiles.sorted((*tiles.dims(found.m, env), *tiles.dims(found.n, env)))[0]
    ):
        found = found.swapped
    batch, m, k, n = (tiles.dims(axes, env) for axes in (found.batch, found.m, found.k, found.n))
    left, left_depth = _operand(tiles, found.left, env, batch, m, k, k, allowed)
    right, right_depth = _operand(tiles, found.right, env, batch, k, n, k, allowed)
    depth = max(left_depth, right_depth)
    dims = (*batch, *m, *n)
    flat = len(batch) <= 1 and len(m) == len(n) == 1
    arguments = [left, right]
    fused = target is not None and flat and target[0] == dims
    if fused and target is not None:
        arguments.append(target[1])
    if allowed.input_precision is not None:
        arguments.append(f'input_precision="{allowed.input_precision}"')
    text = f"tl.dot({', '.join(arguments)})"
    if not flat:
        text = f"tl.reshape({text}, {tiles.shape(dims)})"
    return text, dims, depth, fused


def _operand(
    tiles: Tiles,
    side: Sequence[Node],
    env: Env,
    batch: tuple[Key, ...],
    rows: tuple[Key, ...],
    columns: tuple[Key, ...],
    summed: tuple[Key, ...],
    allowed: DotPrecision,
) -> tuple[str, int]:
    """One side as a matrix (or a stack of them), rows by columns, in the operand dtype."""
    order = (*batch, *rows, *columns)
    value = _side(tiles, side, env, order)
    value = tiles.convert(value, allowed.operand)
    if allowed.input_precision == "tf32":
        value = _rounded(tiles, value)
    value = tiles.masked(value, summed, 0.0)
    value = tiles.permuted(value, order)
    if len(batch) <= 1 and len(rows) == len(columns) == 1:
        return value.text, value.depth
    groups = ([batch] if batch else []) + [rows, columns]
    widths: list[str] = []
    for group in groups:
        size = 1
        for key in group:
            size *= tiles.width(key)
        widths.append(str(size))
    return f"tl.reshape({value.text}, ({', '.join(widths)}))", value.depth


def _rounded(tiles: Tiles, value: Value) -> Value:
    """The value for one TF32 pass, in two instructions."""
    key = ("round_tf32", value.text)
    found = tiles.scope.find(key)
    if found is None:
        tiles.helpers.add("round_tf32")
        text = f"round_tf32({value.text})"
        made = tiles.assign(f"{value.text}_tf32", text, value.dims, "float32", value.depth)
        found = tiles.scope.at(value.depth).know(key, replace(made, zero=value.zero))
    return found


def _side(tiles: Tiles, side: Sequence[Node], env: Env, order: tuple[Key, ...]) -> Value:
    if len(side) == 1:
        (node,) = side
        key: Hashable = (node, tuple(env.get(a) for a in node.axes_free))
        if node in tiles.layout.operands and access.varies(tiles, node, env):
            key = ("operand", order, key)
        known = tiles.scope.find(key)
        if isinstance(node, Load) and known is None:
            known = access.load(tiles, node, env, order)
            tiles.scope.at(known.depth).know(key, known)
        return tiles.value(node, env) if known is None else known
    product = side[0]
    for factor in side[1:]:
        product = Pointwise("mul", (product, factor))
    return tiles.value(product, env)
