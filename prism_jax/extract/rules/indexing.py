"""Indexing by values: integer nodes become terms of indices; what may be outside has a guard."""

from __future__ import annotations

import math
from typing import Any

from prism_jax.extract.flat import Atom, Equation
from prism_jax.extract.integers import clamp_index, dtype_range, index_of
from prism_jax.extract.rule import Point, Pull, guarded, rule
from prism_jax.ir.nodes import REAL, Const, Index, Within, at, sort_of


def _starts(p: Point, atoms: tuple[Atom, ...], highs: list[int]) -> Any:
    """Scalar start indices, clamped to 0..high as XLA does, as indices."""
    found: list[Index] = []
    for atom, high in zip(atoms, highs, strict=True):
        if high == 0:
            found.append(at(0))
            continue
        start = yield p.ask(atom, ())
        found.append(index_of(clamp_index(start, high)))
    return found


@rule("dynamic_slice")
def dynamic_slice(e: Equation, p: Point) -> Pull:
    """start + i, the start clamped so that the slice stays inside."""
    operand, *starts = e.inputs
    sizes = e.params["slice_sizes"]
    highs = [n - int(size) for n, size in zip(operand.shape, sizes, strict=True)]
    begin = yield from _starts(p, tuple(starts), highs)
    return (yield p.ask(operand, [b + ix for b, ix in zip(begin, p.index, strict=True)]))


@rule("dynamic_update_slice", kind="pointwise")
def dynamic_update_slice(e: Equation, p: Point) -> Pull:
    """The update where start <= i < start + size, else the operand."""
    operand, update, *starts = e.inputs
    highs = [n - size for n, size in zip(operand.shape, update.shape, strict=True)]
    begin = yield from _starts(p, tuple(starts), highs)
    index = [ix + b * -1 for b, ix in zip(begin, p.index, strict=True)]
    guards = [
        Within(ix, 0, size)
        for ix, size, high in zip(index, update.shape, highs, strict=True)
        if high > 0
    ]
    return (yield from guarded(p, guards, p.ask(update, index, guards), p.ask(operand, p.index)))


def _mode(e: Equation) -> str:
    return str(getattr(e.params["mode"], "name", e.params["mode"])).lower()


def _known_mode(e: Equation) -> str | None:
    known = ("clip", "fill_or_drop", "promise_in_bounds")
    return None if _mode(e) in known else f"has mode {_mode(e)}"


def fill_value(e: Equation) -> Const:
    """What FILL_OR_DROP gives outside: NaN, or the least (unsigned: the greatest) integer."""
    dtype, given = e.outputs[0].dtype, e.params.get("fill_value")
    sort = sort_of(dtype)
    if given is not None:
        return Const(given.item() if hasattr(given, "item") else given, sort)
    if sort == REAL:
        return Const(math.nan)
    low, high = dtype_range(sort)
    return Const(low if sort.startswith("int") else high, sort)


@rule("gather", check=_known_mode)
def gather(e: Equation, p: Point) -> Pull:
    """The general `lax.gather`: start indices by value, plus an offset inside each slice.

    PROMISE_IN_BOUNDS is clamped like CLIP: that is what XLA does with a broken promise.
    """
    operand, indices = e.inputs
    numbers, sizes = e.params["dimension_numbers"], e.params["slice_sizes"]
    offset_dims = tuple(numbers.offset_dims)
    batch = [ix for dim, ix in enumerate(p.index) if dim not in offset_dims]
    offsets = iter([p.index[dim] for dim in offset_dims])
    collapsed = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    index = [at(0) if dim in collapsed else next(offsets) for dim in range(len(operand.shape))]
    for dim, where in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        index[dim] = batch[where]
    guards: list[Within] = []
    for number, dim in enumerate(numbers.start_index_map):
        start = yield p.ask(indices, [*batch, at(number)])
        high = operand.shape[dim] - int(sizes[dim])
        if _mode(e) == "fill_or_drop":
            begin = index_of(start)
            guards.append(Within(begin, 0, high + 1))
        else:
            begin = index_of(clamp_index(start, high))
        index[dim] = index[dim] + begin
    found = p.ask(operand, index, guards)
    if not guards:
        return (yield found)
    return (yield from guarded(p, guards, found, fill_value(e)))
