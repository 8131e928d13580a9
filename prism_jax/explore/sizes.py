"""The legal sizes of a kernel's symbols, all at once.

In: a kernel and a device. Out: for every symbol a column of one NumPy table; a row of the table is
one assignment. Tiles are powers of two (the last tile may be ragged, so no axis needs to divide);
an axis that both factors of a product share is a batch axis and has tile 1, because a matrix unit
works on one matrix at a time.

>>> from prism_jax import device
>>> from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
>>> from prism_jax.ir.sgraph import GridAxis, Kernel
>>> i = Axis("i", 48)
>>> x, y = Tensor("x", (48,), "float32"), Tensor("y", (48,), "float32")
>>> copy = Kernel("copy", (GridAxis(i, "T_i"),), (), (Store(y, (at(i),), Load(x, (at(i),))),))
>>> table(copy, device.row("H100"))["T_i"].tolist()
[1, 2, 4, 8, 16, 32, 64]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.ir.forms import Form, Number, forms, is_product
from prism_jax.ir.nodes import Axis, Node, Pointwise, Reduce, Size
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Kernel

Table = dict[str, npt.NDArray[np.int64]]

MAX_LOOP_TILE = 4096
MIN_LOOP_TILE = 16
MAX_SPLIT = 64
MAX_BLOCKS = 2**24
CORES_OF_A_BLOCK = 2
"""Of a host: XLA shares out the tiles of a block, and more cores than this wait more than they
work.
"""


def largest_grid_tile(device: Device) -> int:
    """A block's share of one axis: a matrix unit's few tiles, or on a CPU what keeps the loop over
    blocks short.
    """
    return 256 if device.kind == "gpu" else 4096


def largest_tile(device: Device) -> int:
    """Elements that one block's accumulators and its largest intermediate may have: registers, or
    the caches of the few cores that work on a block together.
    """
    if device.kind == "gpu":
        return 49152
    return device.smem_per_block // 4 * min(CORES_OF_A_BLOCK, device.sm_count)


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size`."""
    return 1 << max(0, size - 1).bit_length()


def batch_axes(kernel: Kernel) -> frozenset[Axis]:
    """Axes that both factors of a matrix product share without its being summed over them."""
    found: set[Axis] = set()

    def product(body: object, summed: tuple[Axis, ...]) -> None:
        if isinstance(body, Pointwise) and is_product(body):
            a, b = (set(arg.axes_free) for arg in body.args)
            found.update((a & b) - set(summed))

    for loop in kernel.all_loops:
        for acc in loop.accumulators:
            if acc.monoid == "sum":
                product(acc.summand, (loop.axis,))
    for node in walk(kernel.roots):
        if isinstance(node, Reduce) and node.monoid == "sum":
            product(node.body, node.axes)
    loops = {loop.axis for loop in kernel.all_loops}
    return frozenset(found - loops)


def choices(kernel: Kernel, device: Device) -> dict[str, list[int]]:
    """The values that each symbol may take."""
    found: dict[str, list[int]] = {}
    batch = batch_axes(kernel)

    def extent(size: Size) -> int:
        return size if isinstance(size, int) else MAX_SPLIT

    for grid in kernel.grid:
        if isinstance(grid.tile, str):
            top = min(largest_grid_tile(device), power_of_two(extent(grid.axis.size)))
            if grid.axis in batch:
                top = 1
            found[grid.tile] = [1 << n for n in range(top.bit_length())]
    for loop in kernel.all_loops:
        if isinstance(loop.tile, str):
            top = min(MAX_LOOP_TILE, power_of_two(extent(loop.axis.size)))
            start = min(MIN_LOOP_TILE, top)
            values = [1 << n for n in range(start.bit_length() - 1, top.bit_length())]
            known = found.get(loop.tile)
            found[loop.tile] = [v for v in values if known is None or v in known] or values[:1]
    for symbol in kernel.symbols:  # what is left are the numbers of parts of split reductions
        found.setdefault(symbol, [1 << n for n in range(1, MAX_SPLIT.bit_length())])
    return found


def table(kernel: Kernel, device: Device, limit: int = 200_000) -> Table:
    """Every legal assignment of the kernel's symbols, at most `limit` (the coarsest loop tiles are
    dropped first).
    """
    values = choices(kernel, device)
    names = sorted(values)
    while np.prod([len(values[n]) for n in names]) > limit:
        longest = max(names, key=lambda n: len(values[n]))
        values[longest] = values[longest][:-1]
    grids = np.meshgrid(*(np.array(values[n], np.int64) for n in names), indexing="ij")
    return {name: grid.reshape(-1) for name, grid in zip(names, grids, strict=True)}


def legal(form: Form, device: Device, rows: int) -> npt.NDArray[np.bool_]:
    """Which assignments fit: accumulators and the largest intermediate tile in registers, one
    step's operands on chip.
    """
    fits = np.ones(rows, np.bool_)
    fits &= np.asarray(form.accumulators + form.widest) <= largest_tile(device)
    fits &= 2 * np.asarray(form.operands) <= device.smem_per_block  # two steps in flight at least
    fits &= np.asarray(form.blocks) <= MAX_BLOCKS
    return fits


def fused(kernel: Kernel, sizes: Table) -> Number:
    """Elements of the largest tile of a block where pointwise work is fused into a reduction that
    is no product, as XLA does on a host: the axes of such reductions make no tile wider.
    """
    inside: set[Axis] = set()
    products: set[Node] = set()  # are never built
    for loop in kernel.all_loops:
        products.update(a.summand for a in loop.accumulators if a.monoid == "sum")
    for node in walk(kernel.roots):
        if isinstance(node, Reduce) and node.monoid == "sum" and is_product(node.body):
            products.add(node.body)
        elif isinstance(node, Reduce):
            inside.update(node.axes)
    tiles = {g.axis: g.tile for g in kernel.grid} | {x.axis: x.tile for x in kernel.all_loops}

    def tile(axis: Axis) -> Number:
        size = tiles.get(axis, axis.size)
        return sizes[size] if isinstance(size, str) else size

    widest: Number = 1
    for node in walk(kernel.roots):
        if node in products and is_product(node):
            continue
        axes = [a for a in node.axes_free if a not in inside]
        widest = np.maximum(widest, math.prod(tile(a) for a in axes))
    return widest


def evaluate(kernel: Kernel, device: Device) -> tuple[Table, Form]:
    """The table of assignments that fit and the closed forms on it. The table is empty where
    nothing fits.
    """
    sizes = table(kernel, device)
    rows = len(next(iter(sizes.values()), np.zeros(1)))
    form = forms(kernel, sizes)
    if device.kind == "cpu":
        form = replace(form, widest=fused(kernel, sizes))
    fits = legal(form, device, rows)
    return {n: column[fits] for n, column in sizes.items()}, _rows(form, fits)


def _rows(form: Form, fits: npt.NDArray[np.bool_]) -> Form:
    def take(number: Number) -> Number:
        return np.broadcast_to(np.asarray(number, np.float64), fits.shape)[fits]

    arithmetic: Mapping[object, Number] = {unit: take(n) for unit, n in form.arithmetic.items()}
    return Form(
        take(form.blocks),
        take(form.steps),
        take(form.loaded),
        take(form.compulsory),
        take(form.stored),
        dict(arithmetic),
        take(form.accumulators),
        take(form.operands),
        take(form.widest),
    )
