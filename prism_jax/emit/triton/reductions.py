"""Reductions of tiles.

In: a `Reduce`, or a tile and the dimensions to reduce. Out: the tile without them.

Invariants: lanes that are no element hold the identity; a maximum or minimum of a NaN is NaN;
argmax and argmin give the first best index, and the first NaN before all.

A body that is larger than everything it is made of, such as |x[i, k] - y[j, k]|, is never built
along the reduced axis: its slices are combined one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prism_jax.emit.triton import contractions, scales
from prism_jax.emit.triton.describe import describe
from prism_jax.emit.triton.operators import REDUCERS, literal, tl_dtype
from prism_jax.emit.triton.spans import Dimension, Key
from prism_jax.ir.nodes import REAL, Axis, Iota, Load, Node, Pointwise, Reduce
from prism_jax.ir.ops import MONOIDS

if TYPE_CHECKING:
    from prism_jax.emit.triton.tiles import Env, Span, Tiles, Value
    from prism_jax.ir.product import Sides

__all__ = [
    "combination",
    "combined",
    "extreme",
    "fold",
    "fold_arg",
    "reduce",
    "reduction",
    "spreads",
]

UNROLL = 32
"""Longest reduction that is written slice after slice; longer ones are a loop."""


def reduce(tiles: Tiles, node: Reduce, env: Env) -> Value:
    """A `Reduce` over axes that the block holds whole."""
    inner = {a: s for a, s in env.items() if a not in node.axes}
    where = {a: s.key for a, s in inner.items()}
    found = tiles.layout.products.get(tiles.layout.site(node, node.body.axes_free, where))
    if found is not None:
        if contractions.too_long(tiles, found, inner, node.precision):
            return _in_chunks(tiles, node, found, inner)
        return contractions.dot(tiles, found, inner, node.precision, describe(node))
    plain = len(node.axes) == 1 and not node.monoid.startswith("arg")
    if plain and spreads(tiles, node.body, node.axes[0], inner):
        return _one_by_one(tiles, node, inner)
    keys = [s.key for s in (tiles.span(a, inner) for a in node.axes) if s.width > 1]
    if node.monoid in ("max", "min") and node.body.sort == REAL:
        return extreme(tiles, node.monoid, node.body, inner, keys, describe(node))
    body = tiles.tile(node.body, inner)
    if node.monoid.startswith("arg"):
        (axis,) = node.axes
        _, index = fold_arg(tiles, node.monoid, body, tiles.span(axis, inner), node.body.sort)
        return tiles.convert(index, node.index_sort or "int32")
    for axis in node.axes:
        if tiles.span(axis, inner).key not in body.dims and int(axis.size) > 1:
            body = _repeated(tiles, node, body, int(axis.size))
    return fold(tiles, node.monoid, body, keys, node.body.sort, describe(node))


def spreads(tiles: Tiles, body: Node, axis: Axis, env: Env) -> bool:
    """Whether the body is larger than everything that it is made of, because of the reduced axis:
    then one slice after the other is combined, and the whole never exists.
    """
    span = tiles.span(axis, env)
    whole = frozenset(tiles.dims(body.axes_free, env))
    if span.width == 1 or span.key not in whole or isinstance(body, Load | Iota):
        return False
    stack, seen = [body], set[Node]()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Pointwise):
            stack.extend(node.args)
        elif axis in node.axes_free and not isinstance(node, Load | Iota):
            return False  # a tile that exists already, or costs more by slices
        elif frozenset(tiles.dims(node.axes_free, env)) == whole:
            return False
    return True


def _one_by_one(tiles: Tiles, node: Reduce, env: Env) -> Value:
    """A reduction as a sequence (or, if it is long, a loop) of slices."""
    (axis,) = node.axes
    size, sort = int(axis.size), node.body.sort
    if size <= UNROLL:
        starts = [str(n) for n in range(size)]
        return combined(tiles, node.monoid, node.body, axis, starts, 0, env, None, describe(node))
    dims = tiles.sorted(k for k in tiles.dims(node.body.axes_free, env) if k[1] != axis.name)
    identity = literal(MONOIDS[node.monoid].identity(sort))
    dtype = tiles.compute if sort == REAL else sort
    text = f"tl.full({tiles.shape(dims)}, {identity}, {tl_dtype(dtype)})"
    outer = tiles.scope
    total = tiles.assign(node.monoid, text, dims, dtype, outer.depth, describe(node))
    step = tiles.names.new(axis.name)
    tiles.scope = outer.child()
    depth = tiles.scope.depth
    made = combined(tiles, node.monoid, node.body, axis, [step], depth, env, total, "")
    tiles.scope.add(f"{total.text} = {made.text}")
    body, tiles.scope = tiles.scope, outer
    outer.block(f"for {step} in range({size}):", body)
    return total


def _in_chunks(tiles: Tiles, node: Reduce, found: Sides, env: Env) -> Value:
    """A product without a matrix unit as a loop over pieces of its summed axis: written out whole,
    it would be thousands of instructions.
    """
    (axis,) = node.axes
    held = tiles.layout.held(axis)
    key = ("chunk", axis.name)
    dimension = Dimension(key, axis, contractions.CHUNK, contractions.CHUNK)
    tiles.layout.dimensions[key] = dimension
    tiles.layout.order[key] = tiles.layout.order[held.key]
    dims = tiles.sorted((*tiles.dims(found.m, env), *tiles.dims(found.n, env)))
    outer, text = tiles.scope, f"tl.zeros({tiles.shape(dims)}, tl.float32)"
    total = tiles.assign("dot", text, dims, "float32", outer.depth, describe(node))
    start = tiles.names.new(f"{axis.name}_start")
    tiles.scope = outer.child()
    inside = {**env, axis: tiles.open(dimension, start, tiles.scope.depth)}
    made = contractions.accumulate(tiles, found, inside, node.precision, dims, total.text)
    tiles.scope.add(f"{total.text} = {made}")
    body, tiles.scope = tiles.scope, outer
    outer.block(f"for {start} in range(0, {held.size}, {contractions.CHUNK}):", body)
    return contractions.times_rest(tiles, total, found.rest, env)


def combined(
    tiles: Tiles,
    monoid: str,
    body: Node,
    axis: Axis,
    starts: Sequence[str],
    depth: int,
    env: Env,
    total: Value | None,
    comment: str,
) -> Value:
    """`total` combined with the body at each position of `axis`, in order."""
    sort = body.sort
    dtype = tiles.compute if sort == REAL else sort
    key = tiles.span(axis, env).key
    for number, start in enumerate(starts):
        span = replace(
            tiles.span(axis, env), start=start, width=1, tile=1, ragged=False, depth=depth
        )
        part = tiles.number(body, {**env, axis: span})
        if total is None:
            total = part
            continue
        dims = tiles.sorted((*total.dims, *part.dims))
        text = combination(tiles, monoid, sort, tiles.align(total, dims), tiles.align(part, dims))
        deep = max(total.depth, part.depth, depth)
        shown = comment if number == len(starts) - 1 else f"{axis.name} up to {start}"
        total = tiles.assign(monoid, text, dims, dtype, deep, shown)
    assert total is not None
    assert key not in total.dims
    return total


def combination(tiles: Tiles, monoid: str, sort: str, left: str, right: str) -> str:
    """Text of two values combined."""
    if monoid in ("max", "min") and sort == REAL:
        tiles.helpers.add(f"{monoid}_nan")
        return f"{monoid}_nan({left}, {right})"
    text = MONOIDS[monoid].triton.format(left, right)
    narrow = sort in ("int8", "int16", "uint8", "uint16")
    return f"({text}).to({tl_dtype(sort)})" if narrow else text


def _repeated(tiles: Tiles, node: Reduce, body: Value, count: int) -> Value:
    """The reduction of `count` equal values."""
    if MONOIDS[node.monoid].idempotent:
        return body
    dtype = body.dtype or tiles.compute

    def times(left: str, right: str) -> Value:
        text = combination(tiles, "prod", node.body.sort, left, right)
        return tiles.assign("mul", text, body.dims, dtype, body.depth, zero=body.zero)

    if node.monoid == "sum":
        return times(body.text, str(count))
    power, base = None, body
    while count:  # square and multiply
        if count % 2:
            power = base if power is None else times(power.text, base.text)
        count //= 2
        base = times(base.text, base.text) if count else base
    assert power is not None
    return power


def extreme(
    tiles: Tiles, monoid: str, body: Node, env: Env, keys: Iterable[Key], comment: str
) -> Value:
    """The largest or least c * x of a tile as c times that of x, for a positive c that is constant
    or that a row has in common: rounding keeps the order.
    """
    inner = scales.factored(tiles, body, env)
    found = fold(tiles, monoid, tiles.tile(inner.node, env), keys, REAL, comment)
    if inner.number != 1.0:
        text = f"{found.text} * {inner.number!r}"
        found = tiles.assign(f"{monoid}_scaled", text, found.dims, tiles.compute, found.depth)
    return contractions.times_rest(tiles, found, inner.rows, env)


def fold(
    tiles: Tiles, monoid: str, body: Value, keys: Iterable[Key], sort: str, comment: str
) -> Value:
    """The value reduced along the dimensions `keys`, those that it has."""
    keys = [k for k in tiles.sorted(keys) if k in body.dims]
    identity = MONOIDS[monoid].identity(sort)
    dtype = tiles.compute if sort == REAL else sort
    body = tiles.masked(body, keys, identity)
    for key in reversed(keys):
        at = body.dims.index(key)
        dims = tuple(k for k in body.dims if k != key)
        text = reduction(tiles, monoid, body.text, at, sort)
        zero = body.zero - {key} if monoid == "sum" else frozenset[Key]()
        body = tiles.assign(monoid, text, dims, dtype, body.depth, comment, zero)
    return body


def reduction(tiles: Tiles, monoid: str, text: str, at: int, sort: str) -> str:
    """Text of a tile reduced along one dimension."""
    if monoid in REDUCERS and (sort == REAL or monoid == "prod"):
        tiles.helpers.add(REDUCERS[monoid])
        return f"tl.reduce({text}, {at}, {REDUCERS[monoid]})"
    shown = MONOIDS[monoid].triton_reduce.format(text, d=at)
    widened = sort in ("int8", "int16", "uint8", "uint16")
    return f"{shown}.to({tl_dtype(sort)})" if widened else shown


def fold_arg(tiles: Tiles, monoid: str, body: Value, span: Span, sort: str) -> tuple[Value, Value]:
    """(best value, its index along the axis) along a dimension: the first best, the first NaN
    before all.
    """
    kind = monoid.removeprefix("arg")
    dtype = tiles.compute if sort == REAL else sort
    if span.key not in body.dims:
        start = (
            span.start if span.start is not None and span.width == 1 else "tl.full((), 0, tl.int32)"
        )
        from prism_jax.emit.triton.tiles import Value

        return tiles.convert(body, dtype), Value(start, (), "int32", max(body.depth, span.depth))
    best = fold(tiles, kind, body, [span.key], sort, f"{kind} over {span.axis.name}")
    position = tiles.value(Iota(span.axis), {span.axis: span})
    shown = tiles.align(best, tuple(k for k in body.dims if k != span.key))
    if best.dims:
        slots = ", ".join("None" if k == span.key else ":" for k in body.dims)
        shown = f"{best.text}[{slots}]"
    hit = f"{body.text} == {shown}"
    if sort == REAL:
        hit = f"({hit}) | ({body.text} != {body.text})"
    mask = tiles.inside(span.key)
    if mask is not None:
        hit = f"({hit}) & {tiles.align(mask, body.dims)}"
    large = 2**31 - 1
    depth = max(body.depth, best.depth, position.depth)
    text = f"tl.where({hit}, {tiles.align(position, body.dims)}, {large})"
    places = tiles.assign("place", text, body.dims, "int32", depth, f"{span.axis.name} of the best")
    at = body.dims.index(span.key)
    index = tiles.assign(
        monoid,
        f"tl.min({places.text}, {at})",
        best.dims,
        "int32",
        depth,
        f"{monoid} over {span.axis.name}",
    )
    return best, index
