"""How much of a kernel's work is left once its masked steps are left out.

In: a kernel and columns of sizes for its symbols. Out: for each row of the columns the share of the
steps that blocks still take, on average. Explicit: blocks are counted, or a sample of them.

>>> from prism_jax.ir.nodes import Axis, Const, Iota, Load, Pointwise, Store, Tensor, at
>>> from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop
>>> i, j = Axis("i", 64), Axis("j", 64)
>>> x, y = Load(Tensor("x", (64,), "float16"), (at(j),)), Tensor("y", (64,), "float32")
>>> causal = Pointwise("le", (Iota(j), Iota(i)))
>>> scores = Pointwise("where", (causal, x, Const(float("-inf"))))
>>> top = Accumulator("top", "max", scores, (i,))
>>> kernel = Kernel("tops", (GridAxis(i, "T_i"),), (Loop(j, "T_j", (top,)),), ())
>>> share_left(kernel, {"T_i": np.array([8, 64]), "T_j": np.array([8, 8])}).tolist()
[0.5625, 1.0]
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from prism_jax.explore.masked import cut_loops
from prism_jax.ir.forms import width
from prism_jax.ir.idle import Mask
from prism_jax.ir.masks import Atom
from prism_jax.ir.nodes import Axis, Load
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Kernel, Loop

__all__ = ["share_left", "wasted"]

LINE = 128
"""Bytes that lie together for a block to use all that the memory hands over: a cache line."""

MOST_BLOCKS = 256
"""Blocks along the axes of a mask that are looked at; of more, evenly spaced ones."""


def share_left(
    kernel: Kernel, sizes: Mapping[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.float64]:
    """For each row of sizes, the share of the steps of all loops that are left."""
    rows = max((len(column) for column in sizes.values()), default=1)
    cut = cut_loops(kernel)
    if not cut:
        return np.ones(rows)
    total, left = np.zeros(rows), np.zeros(rows)
    for loop in kernel.loops:
        tile = _column(loop.tile, sizes, rows)
        steps = np.ceil(_size(loop.axis) / tile)
        total += steps
        masks = [m for one, m in cut if one is loop]
        left += steps * _share(kernel, loop, masks[0], sizes, rows) if masks else steps
    return left / total


def wasted(kernel: Kernel, sizes: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    """For each row of sizes, how many times more bytes than are used the lines have that are
    touched, because a block wants short pieces of rows.
    """
    rows = max((len(column) for column in sizes.values()), default=1)
    tiles = {g.axis: _column(g.tile, sizes, rows) for g in kernel.grid}
    tiles |= {x.axis: _column(x.tile, sizes, rows) for x in kernel.all_loops}
    total, moved = 0.0, np.zeros(rows)
    loads = {n for n in walk(kernel.roots) if isinstance(n, Load) and n.index}
    for load in sorted(loads, key=lambda n: (n.tensor.name, str(n.index))):
        shape = load.tensor.shape
        if not all(isinstance(size, int) for size in shape):
            continue
        element = width(load.tensor.dtype)
        count = float(np.prod([int(size) for size in shape])) * element
        piece = np.ones(rows)
        for axis, coefficient in load.index[-1].terms:
            if isinstance(axis, Axis) and coefficient == 1 and isinstance(axis.size, int):
                piece = piece * np.minimum(
                    tiles.get(axis, _column(axis.size, sizes, rows)), axis.size
                )
        piece = np.minimum(piece, int(shape[-1]))
        whole = piece >= int(shape[-1])  # the next row follows at once
        total += count
        moved += count * np.where(whole, 1.0, np.maximum(1.0, LINE / (piece * element)))
    return moved / total if total else np.ones(rows)


def _share(
    kernel: Kernel,
    loop: Loop,
    mask: Mask,
    sizes: Mapping[str, npt.NDArray[np.int64]],
    rows: int,
) -> npt.NDArray[np.float64]:
    tiles = {g.axis: _column(g.tile, sizes, rows) for g in kernel.grid}
    named = sorted({a for atom in mask.atoms for a in _axes(atom)} - {loop.axis})
    split = [a for a in named if a in tiles]
    step = _column(loop.tile, sizes, rows)
    known: dict[tuple[int, ...], float] = {}
    found = np.ones(rows)
    for row in range(rows):
        key = (int(step[row]), *(int(tiles[a][row]) for a in split))
        if key not in known:
            known[key] = _steps(loop, mask, dict(zip(split, key[1:], strict=True)), key[0])
        found[row] = known[key]
    return found


def _steps(loop: Loop, mask: Mask, tiles: Mapping[Axis, int], step: int) -> float:
    """Share of the steps that a block takes, on average over the blocks."""
    size = _size(loop.axis)
    count = -(-size // step)
    starts: list[list[tuple[Axis, int, int]]] = []
    for axis, tile in tiles.items():
        blocks = -(-_size(axis) // tile)
        some = sorted({int(n) for n in np.linspace(0, blocks - 1, min(blocks, MOST_BLOCKS))})
        tops = [min(_size(axis), (n + 1) * tile) - 1 for n in some]
        starts.append([(axis, n * tile, top) for n, top in zip(some, tops, strict=True)])
    shares: list[float] = []
    for block in itertools.islice(itertools.product(*starts), MOST_BLOCKS**2):
        ends = {axis: (low, high) for axis, low, high in block}
        first, last = 0, size - 1
        for atom in mask.atoms:
            way = atom.of(loop.axis)
            if abs(way) != 1:
                continue
            most = atom.constant
            for axis, c in atom.coefficients:
                if axis != loop.axis:
                    low, high = ends.get(axis, (0, _size(axis) - 1))
                    most += c * (high if c > 0 else low)
            if way < 0:
                last = min(last, most)
            else:
                first = max(first, -most)
        shares.append(max(0, last // step - first // step + 1) / count if last >= first else 0.0)
    return float(np.mean(shares)) if shares else 1.0


def _axes(atom: Atom) -> list[Axis]:
    return [axis for axis, _ in atom.coefficients]


def _size(axis: Axis) -> int:
    assert isinstance(axis.size, int)
    return axis.size


def _column(
    size: int | str, sizes: Mapping[str, npt.NDArray[np.int64]], rows: int
) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.asarray(sizes[size] if isinstance(size, str) else size), rows)
