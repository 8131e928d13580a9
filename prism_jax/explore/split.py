"""Splitting a kernel's reduction over the grid, together with the kernel that combines the parts.

A kernel with few blocks leaves most multiprocessors idle. Its loop is cut into S runs, one per
block of a new grid axis; every block stores its accumulators, and a second kernel merges them with
each accumulator's own monoid, rescaled where the accumulator is:

    final = (+)_s [live(r_s) ? exp(u(r) - u(r_s)) (.) part_s : identity],   r = max_s r_s

A split without its combining step cannot be written: both kernels are made here, together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from prism_jax.explore.structure import KernelBuilder, Unfit
from prism_jax.ir.nodes import (
    Axis,
    Const,
    Load,
    Node,
    Pointwise,
    Reduce,
    Store,
    Tensor,
    at,
)
from prism_jax.ir.ops import MONOIDS
from prism_jax.ir.program import contents
from prism_jax.ir.rewrite import Replacing
from prism_jax.ir.rewrite import replace as substitute
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop


@dataclass(frozen=True)
class Split:
    """The two kernels of a split reduction, and the axis of the parts."""

    parts: Kernel
    combine: Kernel
    axis: Axis


def split(builder: KernelBuilder, kernel: Kernel, compute: str, recompute: bool = False) -> Split:
    """The kernel's only loop, split. Raises `Unfit` where that has no meaning or no use.

    An accumulator may lack one of the grid's axes (a row's norm beside a matrix product). With
    `recompute` it is not split but computed again by the second kernel; otherwise the axis is held
    by the first, so that one block has all of it.
    """
    if len(kernel.loops) != 1 or kernel.loops[0].stores or not kernel.stores:
        raise Unfit("only a kernel with one loop and an epilogue can be split")
    [loop] = kernel.loops
    if any(a.monoid in ("argmax", "argmin") for a in loop.accumulators):
        raise Unfit("the parts of an argmax are pairs")
    stored = _stored(kernel, loop) if recompute else loop.accumulators
    if recompute and len(stored) == len(loop.accumulators):
        raise Unfit("nothing is left to recompute")
    axis = Axis(f"s_{loop.axis.name}", f"S_{loop.axis.name}")
    tensors = {a.name: _part(kernel, a, axis, compute) for a in stored}
    return Split(
        _parts(kernel, loop, stored, tensors, axis),
        _combine(builder, kernel, stored, tensors, axis),
        axis,
    )


def _stored(kernel: Kernel, loop: Loop) -> tuple[Accumulator, ...]:
    """The accumulators whose parts are stored: those with every grid axis, and what their rescaling
    depends on.
    """
    grid = [g.axis for g in kernel.grid]
    wide = [a for a in loop.accumulators if all(axis in a.axes for axis in grid)]
    needed = {name for a in wide for name in a.depends} | {a.name for a in wide}
    stored = tuple(a for a in loop.accumulators if a.name in needed)
    if not stored:
        raise Unfit("no accumulator of the loop has all axes of the grid")
    return stored


def _part(kernel: Kernel, accumulator: Accumulator, axis: Axis, compute: str) -> Tensor:
    dtype = compute if accumulator.summand.sort == "real" else accumulator.summand.sort
    shape = (axis.size, *(a.size for a in accumulator.axes))
    return Tensor(f"{kernel.name}_{accumulator.name}", shape, dtype)


def _parts(
    kernel: Kernel,
    loop: Loop,
    stored: tuple[Accumulator, ...],
    tensors: Mapping[str, Tensor],
    axis: Axis,
) -> Kernel:
    """The first kernel: block s runs its share of the steps and stores what it has."""
    grid_axes = [g.axis for g in kernel.grid]
    narrow = {a for acc in stored for a in grid_axes if a not in acc.axes}
    stores = tuple(
        Store(tensors[a.name], (at(axis), *(at(x) for x in a.axes)), a.carried()) for a in stored
    )
    shared = replace(loop, accumulators=stored, split=axis)
    grid = tuple(
        g for g in kernel.grid if g.axis not in narrow
    )  # a narrow axis is held whole: one block writes it once
    return Kernel(f"{kernel.name}_parts", (GridAxis(axis, 1), *grid), (shared,), stores)


def _combine(
    builder: KernelBuilder,
    kernel: Kernel,
    stored: tuple[Accumulator, ...],
    tensors: Mapping[str, Tensor],
    axis: Axis,
) -> Kernel:
    """The second kernel: merges the parts, then the epilogue of the original."""
    finals: dict[Node, Node] = {}
    for accumulator in stored:
        part = _load(tensors[accumulator.name], accumulator, axis)
        if accumulator.rescale is not None:
            part = _rescaled(accumulator, part, tensors, stored, axis, finals)
        finals[accumulator.carried()] = Reduce(accumulator.monoid, (axis,), part)
    for reduction, placed in builder.placed.items():
        for accumulator, _ in placed.parts:
            if accumulator.carried() not in finals:
                if accumulator.carried() is not placed.final:
                    raise Unfit("an accumulator that is not split has no term of its own")
                finals[accumulator.carried()] = reduction
    final = Replacing(finals)
    stores = tuple(Store(s.tensor, s.index, final(s.value)) for s in kernel.stores)
    for store in stores:
        if contents(store.value).carried:
            raise Unfit("the epilogue needs an accumulator that is not stored")
    roles: dict[Axis, str] = dict(builder.roles)
    return KernelBuilder(f"{kernel.name}_combine", stores, roles, builder.fuse).build()


def _load(tensor: Tensor, accumulator: Accumulator, axis: Axis) -> Load:
    return Load(tensor, (at(axis), *(at(a) for a in accumulator.axes)))


def _rescaled(
    accumulator: Accumulator,
    part: Node,
    tensors: Mapping[str, Tensor],
    stored: tuple[Accumulator, ...],
    axis: Axis,
    finals: Mapping[Node, Node],
) -> Node:
    """The part brought to the common stabiliser, and the identity where the part saw nothing."""
    assert accumulator.rescale is not None
    by_name = {a.name: a for a in stored}
    values: dict[Node, Node] = {}
    live: list[Node] = []
    for name in accumulator.depends:
        other = by_name[name]
        mine = _load(tensors[name], other, axis)
        values[other.carried("old")] = mine
        values[other.carried("new")] = finals[other.carried()]
        start = Const(MONOIDS[other.monoid].identity(mine.sort), mine.sort)
        live.append(Pointwise("ne", (mine, start)))
    moved: Node = Pointwise(accumulator.action, (substitute(accumulator.rescale, values), part))
    neutral = Const(MONOIDS[accumulator.monoid].identity(part.sort), part.sort)
    for alive in live:
        moved = Pointwise("where", (alive, moved, neutral))
    return moved
