"""Reading and writing arrays by affine indices, as jax.numpy source.

In: a `Load` or a `Store` and what its axes range over. Out: the cheapest text that means it: a
slice where every index is one axis, a reshape where indices split or merge dimensions, padding
where a guard only says "inside", and a gather or scatter for the rest.

Invariant: no index is ever out of range in a gather; where a guard fails, `fill` is selected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prism_jax.ir.nodes import Axis, Index, Load, Store, Within

if TYPE_CHECKING:
    from prism_jax.emit.array_terms import Env, Range, Terms, Value

__all__ = ["load", "split_shape", "store"]


@dataclass
class Dimension:
    """One dimension of the array that is read, after padding and reshaping: `size` elements.

    `axis` None: the constant position `offset`; else positions `offset + step * axis`.
    """

    size: int
    axis: Axis | None
    offset: int = 0
    step: int = 1


def radix(index: Index, size: int) -> list[Axis] | None:
    """The axes, major first, whose mixed-radix number this index is, if it covers `size`
    exactly.
    """
    if index.offset or not index.terms or any(not isinstance(t, Axis) for t, _ in index.terms):
        return None
    terms = sorted(
        ((c, t) for t, c in index.terms if isinstance(t, Axis)),
        key=lambda ct: (ct[0], -int(ct[1].size)),
    )
    width = 1
    for coefficient, axis in terms:
        if coefficient != width:
            return None
        width *= int(axis.size)
    return [axis for _, axis in reversed(terms)] if width == size else None


def split_shape(
    shape: Sequence[int], index: Sequence[Index]
) -> list[tuple[Axis | None, int]] | None:
    """The dimensions after splitting each into the axes that index it; None if some index is not
    like that.
    """
    parts: list[tuple[Axis | None, int]] = []
    for size, one in zip(shape, index, strict=True):
        axes = radix(one, size)
        if axes is None and size == 1 and not one.terms and one.offset == 0:
            parts.append((None, 1))
        elif axes is None:
            return None
        else:
            parts += [(axis, int(axis.size)) for axis in axes]
    axes = [axis for axis, _ in parts if axis is not None]
    return parts if len(set(axes)) == len(axes) else None


def load(terms: Terms, node: Load, env: Env) -> Value:
    """The elements that `node` reads, in the tensor's dtype."""
    text, depth = terms.tensors[node.tensor.name]
    dtype = node.tensor.dtype
    dims, pads = _dimensions(node)
    if dims is None:
        return _gather(terms, node, env, text, depth)
    if any(pad != (0, 0) for pad in pads):
        fill = f"jnp.{dtype}({_fill(node)})".replace("jnp.bool(", "jnp.bool_(")
        widths = ", ".join(f"({low}, {high}, 0)" for low, high in pads)
        padded = terms.scope.find(key := ("pad", text, widths, fill))
        if padded is None:
            comma = "," if len(pads) == 1 else ""
            made = terms.assign(
                f"{text}_pad", f"lax.pad({text}, {fill}, ({widths}{comma}))", (), dtype, depth
            )
            padded = terms.scope.at(depth).know(key, made)
        text = padded.text
    whole = [int(s) + low + high for s, (low, high) in zip(node.tensor.shape, pads, strict=True)]
    if [d.size for d in dims] != whole:
        text = f"{text}.reshape({', '.join(str(d.size) for d in dims)})"
    return _slice(terms, node, env, text, dims, depth)


def _dimensions(node: Load) -> tuple[list[Dimension] | None, list[tuple[int, int]]]:
    """What each dimension is indexed by, and the padding that makes the guards true; None:
    gather.
    """
    guards = list(node.guard)
    dims: list[Dimension] = []
    pads: list[tuple[int, int]] = []
    for extent, index in zip(node.tensor.shape, node.index, strict=True):
        size = int(extent)
        split = radix(index, size)
        if split is not None and len(split) > 1:
            dims += [Dimension(int(axis.size), axis) for axis in split]
            pads.append((0, 0))
            continue
        if len(index.terms) > 1 or index.nodes:
            return None, []
        axis, step = (index.terms[0][0], index.terms[0][1]) if index.terms else (None, 1)
        if step < 0 or not (axis is None or isinstance(axis, Axis)):
            return None, []
        last = index.offset + step * (int(axis.size) - 1 if axis is not None else 0)
        low = high = 0
        inside = Within(index, 0, size)
        if inside in guards:
            guards.remove(inside)
            low, high = max(0, -index.offset), max(0, last + 1 - size)
        if index.offset + low < 0 or last >= size + high:
            return None, []
        dims.append(Dimension(size + low + high, axis, index.offset + low, step))
        pads.append((low, high))
    used = [d.axis for d in dims if d.axis is not None]
    return (None if guards or len(set(used)) < len(used) else dims), pads


def _slice(
    terms: Terms, node: Load, env: Env, text: str, dims: list[Dimension], depth: int
) -> Value:
    """A rectangular piece: one element for constants and scalar axes, a run for the others."""
    python = [d for d in dims if d.axis is not None and terms.range_of(d.axis, env).python]
    if len(python) == 1 and len(dims) > 1:
        return _slices(terms, node, env, text, dims, python[0], depth)
    axes, cut = _cut(terms, env, text, dims)
    spans = [terms.range_of(d.axis, env) for d in dims if d.axis is not None]
    depth = max([depth, *(s.depth for s in spans if s.start is not None)])
    if cut.isidentifier():
        from prism_jax.emit.array_terms import Value

        return Value(cut, axes, node.tensor.dtype, depth)
    return terms.assign(node.tensor.name, cut, axes, node.tensor.dtype, depth)


def _cut(
    terms: Terms, env: Env, text: str, dims: Sequence[Dimension]
) -> tuple[tuple[Axis, ...], str]:
    """The axes and the text of a rectangular piece of the array `text`."""
    starts: list[str] = []
    lengths: list[int] = []
    shown: list[str] = []  # the same as a static slice
    axes: list[Axis] = []
    after: list[str] = []  # steps and removed dimensions, after a dynamic slice
    static = True
    for dim in dims:
        span = terms.range_of(dim.axis, env) if dim.axis is not None else None
        if span is None or span.size is None:
            position = (
                str(dim.offset) if span is None else _times(span.start or "0", dim.step, dim.offset)
            )
            shown.append(position)
            after.append("0")
            lengths.append(1)
            starts.append(position)
        else:
            assert dim.axis is not None
            axes.append(dim.axis)
            length = (span.size - 1) * dim.step + 1
            lengths.append(length)
            starts.append(
                _times(span.start, dim.step, dim.offset) if span.start else str(dim.offset)
            )
            step = f":{dim.step}" if dim.step > 1 else ""
            full = span.start is None and dim.offset == 0 and length == dim.size
            shown.append(f":{step}" if full else f"{dim.offset}:{dim.offset + length}{step}")
            after.append(f":{step}")
        if span is not None and span.start is not None:
            static = False
    if static:
        while shown and shown[-1] == ":":
            shown.pop()
        return tuple(axes), text + (f"[{', '.join(shown)}]" if shown else "")
    comma = "," if len(dims) == 1 else ""
    text = f"lax.dynamic_slice({text}, ({', '.join(starts)}{comma}), {tuple(lengths)})"
    while after and after[-1] == ":":
        after.pop()
    return tuple(axes), text + (f"[{', '.join(after)}]" if after else "")


def _slices(
    terms: Terms, node: Load, env: Env, text: str, dims: list[Dimension], one: Dimension, depth: int
) -> Value:
    """The slice that a Python loop over `one` is at: of each slice there is an array of its own,
    made outside of all other loops, since XLA vectorises reading a run of an array and not reading
    a run of an array's column.
    """
    from prism_jax.emit.array_terms import Value

    assert one.axis is not None
    span = terms.range_of(one.axis, env)
    assert span.start is not None
    count, name = int(one.axis.size), f"{node.tensor.name}_slices"
    key = ("slices", text, dims.index(one), count, one.step, one.offset)
    known = terms.scope.find(key)
    if known is None:
        place = _times("n", one.step, one.offset)
        shown = ", ".join(place if d is one else ":" for d in dims)
        every = f"[{text}[{shown}] for n in range({count})]"
        made = terms.assign(name, every, (), node.tensor.dtype, depth)
        known = terms.scope.at(depth).know(key, made)
    rest = [d for d in dims if d is not one]
    spans = [terms.range_of(d.axis, env) for d in rest if d.axis is not None]
    inner = max([depth, *(s.depth for s in spans if s.start is not None)])
    key = ("slices", node, known.text, *spans)
    tiles = terms.scope.find(key)
    if tiles is None:
        given = Value("one", (), node.tensor.dtype, depth)
        axes, cut = _cut(terms, env, given.text, rest)
        tiles = Value(known.text, axes, known.dtype, known.depth)
        if cut != given.text:
            every = f"[{cut} for one in {known.text}]"
            tiles = terms.assign(name, every, axes, node.tensor.dtype, inner)
        terms.scope.at(inner).know(key, tiles)
    return Value(f"{tiles.text}[{span.start}]", tiles.axes, tiles.dtype, span.depth)


def _times(start: str, step: int, offset: int) -> str:
    text = start if step == 1 else f"{start} * {step}"
    return text if offset == 0 else f"{text} + {offset}"


def _gather(terms: Terms, node: Load, env: Env, text: str, depth: int) -> Value:
    """Elements at computed positions; dimensions indexed by one axis of their own stay slices."""
    shape = [int(s) for s in node.tensor.shape]
    counts: dict[Axis, int] = {}
    for index in node.index:
        for axis in index.axes_free:
            counts[axis] = counts.get(axis, 0) + 1
    kept: list[Axis | None] = []
    for size, index in zip(shape, node.index, strict=True):
        axis = index.axis
        whole = axis is not None and counts[axis] == 1 and int(axis.size) == size
        span = terms.range_of(axis, env) if axis is not None and whole else None
        kept.append(
            axis if span is not None and span.start is None and span.size is not None else None
        )
    positions = [
        None if k else _position(terms, i, env) for i, k in zip(node.index, kept, strict=True)
    ]
    found = [p for p in positions if p is not None]
    joint = terms._joint(found)
    depth = max([depth, *(p.depth for p in found)])
    shown: list[str] = []
    for size, position in zip(shape, positions, strict=True):
        if position is None:
            shown.append(":")
        else:
            clamped = f"jnp.clip({position.text}, 0, {size - 1})" if node.guard else position.text
            shown.append(
                terms.align(type(position)(f"({clamped})", position.axes, position.dtype), joint)
            )
    slots = [n for n, p in enumerate(positions) if p is not None]
    adjacent = slots == list(range(slots[0], slots[0] + len(slots)))
    free = [k for k in kept if k is not None]
    before = len([k for k in kept[: slots[0]] if k is not None]) if adjacent else 0
    axes = (*free[:before], *joint, *free[before:])
    mode = 'mode="promise_in_bounds", wrap_negative_indices=False'
    text = f"{text}.at[{', '.join(shown)}].get({mode})"
    value = terms.assign(node.tensor.name, text, axes, node.tensor.dtype, depth)
    return _guarded(terms, node, env, value) if node.guard else value


def _guarded(terms: Terms, node: Load, env: Env, value: Value) -> Value:
    """`value` where every guard holds, the fill elsewhere."""
    checks = [(_position(terms, g.index, env), g) for g in node.guard]
    axes = terms._joint([value, *(p for p, _ in checks)])
    texts: list[str] = []
    for position, guard in checks:
        text = terms.align(position, axes)
        texts.append(f"({text} >= {guard.low}) & ({text} < {guard.high})")
    depth = max([value.depth, *(p.depth for p, _ in checks)])
    fill = f"jnp.{value.dtype.replace('bool', 'bool_')}({_fill(node)})"
    text = f"jnp.where({' & '.join(texts)}, {terms.align(value, axes)}, {fill})"
    return terms.assign(node.tensor.name, text, axes, value.dtype, depth)


def _position(terms: Terms, index: Index, env: Env) -> Value:
    """An affine index as an int32 array (int64 where the tensor index already is)."""
    from prism_jax.emit.array_terms import Value
    from prism_jax.ir.nodes import Iota

    parts: list[tuple[Value, int]] = []
    for term, coefficient in index.terms:
        node = Iota(term) if isinstance(term, Axis) else term
        value = terms.value(node, env)
        parts.append((value, coefficient))
    if not parts:
        return Value(f"jnp.int32({index.offset})", (), "int32")
    dtype = "int64" if any(v.dtype in ("int64", "uint64", "uint32") for v, _ in parts) else "int32"
    parts = [(terms.convert(v, dtype), c) for v, c in parts]
    axes = terms._joint([v for v, _ in parts])
    texts = [terms.align(v, axes) + (f" * {c}" if c != 1 else "") for v, c in parts] + (
        [str(index.offset)] if index.offset else []
    )
    if len(texts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    return terms.assign("position", " + ".join(texts), axes, dtype, max(v.depth for v, _ in parts))


def _fill(node: Load) -> str:
    value = node.fill.value if node.fill is not None else 0
    if isinstance(value, float) and (math.isinf(value) or math.isnan(value)):
        return f'float("{value}")'
    return repr(value)


def store(terms: Terms, item: Store, value: Value, env: Env, buffer: str | None) -> str:
    """Text of the whole tensor after `item`: of the value itself where it covers the tensor, else
    of an update.

    `buffer` is the tensor so far, in the shape of `split_shape` where there is one; None if
    nothing is written to it yet and the value covers it.
    """
    dtype = item.tensor.dtype
    value = (
        terms.convert(value, dtype)
        if value.dtype
        else type(value)(
            f"jnp.asarray({value.text}, jnp.{dtype.replace('bool', 'bool_')})", (), dtype
        )
    )
    shape = [int(s) for s in item.tensor.shape]
    parts = split_shape(shape, item.index)
    if parts is None:
        return _scatter(terms, item, value, env, buffer)
    axes = tuple(axis for axis, _ in parts if axis is not None)
    spans: list[Range | None] = [None if a is None else terms.range_of(a, env) for a, _ in parts]
    shown = tuple(
        a
        for a, s in zip([a for a, _ in parts], spans, strict=True)
        if s is not None and a and s.size is not None
    )
    if not axes and not value.axes:
        return value.text if not shape else f"{value.text}.reshape({', '.join(map(str, shape))})"
    tile = terms.spread(value, shown, env)
    lengths = [1 if s is None or s.size is None else s.size for s in spans]
    whole = all(s is None or s.start is None for s in spans)
    target = shape if whole else lengths
    if list(terms.sizes(shown, env)) != target:
        tile = f"{tile}.reshape({', '.join(map(str, target))})"
    if whole:
        return tile
    assert buffer is not None
    starts = ", ".join("0" if s is None or s.start is None else s.start for s in spans)
    comma = "," if len(spans) == 1 else ""
    return f"lax.dynamic_update_slice({buffer}, {tile}, ({starts}{comma}))"


def _scatter(terms: Terms, item: Store, value: Value, env: Env, buffer: str | None) -> str:
    """An update at computed positions: every element is written once."""
    assert buffer is not None
    positions = [_position(terms, index, env) for index in item.index]
    joint = terms._joint([*positions, value])
    indices = ", ".join(terms.align(p, joint) for p in positions)
    text = terms.spread(value, joint, env)
    return f'{buffer}.at[{indices}].set({text}, mode="promise_in_bounds", unique_indices=True)'
