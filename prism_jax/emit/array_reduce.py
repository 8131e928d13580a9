"""Reductions as jax.numpy source: contractions, folds along dimensions, sums of slices.

In: a `Reduce` and what its free axes range over. Out: one value. A reduction over tiles that is
the same in many of them, or small, is computed once for whole axes and read in tiles.

What XLA's CPU backend is known to do badly is not asked of it: it reduces (value, index) pairs one
by one, so the index of the best is found by comparing with the best; and it does not vectorise
along a reduced axis inside a fusion, so a short one is written as a sum of slices.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prism_jax.emit import array_dot
from prism_jax.ir.nodes import FLOATS, Axis, Carried, Reduce
from prism_jax.ir.ops import MONOIDS
from prism_jax.ir.product import factors
from prism_jax.ir.program import walk

if TYPE_CHECKING:
    from prism_jax.emit.array_terms import Env, Terms, Value

__all__ = ["fold", "reduction"]

HOISTED_ELEMENTS = 2**20
"""A reduction that is not for one tile only may have so many results: some megabytes."""


def reduction(terms: Terms, node: Reduce, env: Env) -> Value:
    """The node's value, in the outermost scope that has all it is made of."""
    if _worth_hoisting(terms, node, env):
        return _hoisted(terms, node, env)
    inner = {a: r for a, r in env.items() if a not in node.axes}
    parts = factors(node.body) if node.monoid == "sum" else ()
    if len(parts) > 1:
        return array_dot.contraction(terms, parts, node.axes, inner, node.precision, rounded=True)
    length = math.prod(terms.sizes(node.axes, inner))
    if 1 < length <= terms.unroll and len(node.axes) == 1 and not node.monoid.startswith("arg"):
        return _unrolled(terms, node, inner)
    body, dtype = terms.argument(node.body, inner), terms.width(node.body.sort)
    body = terms.convert(body, dtype) if body.dtype == "" else body
    if node.precision is not None and node.precision.accumulate == "float64":
        body, dtype = terms.convert(body, "float64"), "float64"
    return fold(terms, node.monoid, body, node.axes, inner, dtype, node.index_sort)


def fold(
    terms: Terms,
    monoid: str,
    body: Value,
    summed: tuple[Axis, ...],
    env: Env,
    dtype: str,
    index_sort: str | None,
) -> Value:
    """The value reduced along `summed`; an axis that it does not have counts all the same."""
    axes = (*(a for a in body.axes if a not in summed), *terms.shown(summed, env))
    kept = axes[: len(axes) - len(terms.shown(summed, env))]
    text = terms.spread(body, axes, env)
    if set(axes) == set(body.axes):  # reduce where the axes stand
        axes, text = body.axes, body.text
    dims = tuple(n for n, a in enumerate(axes) if a in summed)
    if not dims:
        text = f"jnp.{index_sort}(0)" if index_sort else text
    elif index_sort and terms.arg_by_value:
        whole = body if text == body.text else terms.assign("body", text, axes, dtype, body.depth)
        text = _place(terms, monoid, whole, kept, env, index_sort)
    else:
        shown = str(dims[0]) if monoid.startswith("arg") else str(dims)
        text = MONOIDS[monoid].jnp_reduce.format(text, d=shown)
        if index_sort or dtype not in (
            *FLOATS,
            "bool",
        ):  # jnp widens small integers and chooses its own index dtype
            text += f".astype(jnp.{index_sort or dtype})"
    return terms.assign(monoid, text, kept, index_sort or dtype, body.depth)


def _place(
    terms: Terms, monoid: str, body: Value, kept: tuple[Axis, ...], env: Env, index_sort: str
) -> str:
    """Text of the first index along the axis that is not kept at which `body` is best; a NaN is the
    best there is. The best itself may not tell: where XLA's CPU backend fuses a maximum into a loop
    of its own, it passes over NaN.
    """
    (dim,) = (n for n, axis in enumerate(body.axes) if axis not in kept)
    count = terms.range_of(body.axes[dim], env).size
    best = MONOIDS[monoid.removeprefix("arg")].jnp_reduce.format(body.text, d=f"({dim},)")
    along = [":" if n == dim else "None" for n in range(len(body.axes))]
    across = ["None" if n == dim else ":" for n in range(len(body.axes))]
    hit = f"{body.text} == {best}[{', '.join(across)}]"
    hit = terms.assign("hit", hit, body.axes, "bool", body.depth).text
    index = f"jnp.arange({count}, dtype=jnp.{index_sort})[{', '.join(along)}]"
    # `count` is no index: where every element is compared with the best, one is hit.
    places = f"jnp.where({hit}, {index}, jnp.{index_sort}({count}))"
    if body.dtype not in FLOATS:
        return f"jnp.min({places}, ({dim},))"
    places = f"jnp.where({body.text} != {body.text}, {index} - {count}, {places})"
    first = f"jnp.min({places}, ({dim},))"
    least = terms.assign("least", first, kept, index_sort, body.depth).text
    return f"jnp.where({least} < 0, {least} + {count}, {least})"


def _unrolled(terms: Terms, node: Reduce, env: Env) -> Value:
    """A sum of slices. The lines of the slices may use anything in the open scope, so the sum
    stands there too.
    """
    from prism_jax.emit.array_terms import Range, Value

    (axis,) = node.axes
    step, total = terms.names.new(axis.name), terms.names.new(node.monoid)
    outer, terms.scope = terms.scope, terms.scope.child()
    span = Range(axis, step, None, terms.scope.depth, python=True)
    body = terms.argument(node.body, {**env, axis: span})
    text = body.text if body.dtype else f"jnp.{terms.compute}({body.text})"
    update = MONOIDS[node.monoid].jnp.format(total, text)
    terms.scope.add(f"{total} = {text} if {step} == 0 else {update}")
    inner, terms.scope = terms.scope, outer
    outer.block(f"for {step} in range({terms.range_of(axis, {}).size}):", inner)
    return Value(total, body.axes, terms.width(node.sort), outer.depth)


# --- once for all tiles ---------------------------------------------------------------------------


def _worth_hoisting(terms: Terms, node: Reduce, env: Env) -> bool:
    """Whether the reduction is small, and the same in many tiles or for many of them at once."""
    tiled = {a for a in node.axes_free if terms.range_of(a, env).start is not None}
    if not tiled or terms.moving <= tiled or any(env[a].python for a in tiled):
        return False
    if math.prod(int(a.size) for a in node.axes_free) > HOISTED_ELEMENTS:
        return False
    return not any(isinstance(n, Carried) for n in walk([node]))


def _hoisted(terms: Terms, node: Reduce, env: Env) -> Value:
    """The reduction over whole axes, written outermost, and the tile of it."""
    inner, terms.scope = terms.scope, terms.scope.at(0)
    whole = terms.value(node, {})
    terms.scope = inner
    starts: list[str] = []
    picks: list[str] = []
    depth = whole.depth
    for axis in whole.axes:
        span = terms.range_of(axis, env)
        starts.append(span.start or "0")
        picks.append("0" if span.size is None else ":")
        depth = max(depth, span.depth) if span.start is not None else depth
    comma = "," if len(starts) == 1 else ""
    lengths = terms.sizes(whole.axes, env)
    text = f"lax.dynamic_slice({whole.text}, ({', '.join(starts)}{comma}), {lengths})"
    text += f"[{', '.join(picks)}]" if "0" in picks else ""
    axes = tuple(a for a in whole.axes if terms.range_of(a, env).size is not None)
    return terms.assign(whole.text, text, axes, whole.dtype, depth)
