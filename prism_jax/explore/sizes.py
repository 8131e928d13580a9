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
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.ir.counts import Number, maximum
from prism_jax.ir.forms import Form, forms
from prism_jax.ir.nodes import Axis, Load, Node, Reduce
from prism_jax.ir.product import product_of
from prism_jax.ir.program import reductions_of
from prism_jax.ir.sgraph import Kernel

Table = dict[str, npt.NDArray[np.int64]]
Recipe = tuple[tuple[str, Axis], ...]
"""What a size symbol cuts up: "grid" (of a product's batch: "batch") or "loop", and the axis.
Empty: the number of parts of a split reduction.
"""

MAX_LOOP_TILE = 4096
MIN_LOOP_TILE = 16
MAX_SPLIT = 64
MAX_BLOCKS = 2**24
MOST_ASSIGNMENTS = 200_000
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

    def product(monoid: str, body: Node, summed: tuple[Axis, ...]) -> None:
        sides = product_of(monoid, body, summed)
        if sides is not None:
            found.update(sides.batch)

    for loop in kernel.all_loops:
        for acc in loop.accumulators:
            product(acc.monoid, acc.summand, (loop.axis,))
    for node in reductions_of(kernel.roots):
        product(node.monoid, node.body, node.axes)
    loops = {loop.axis for loop in kernel.all_loops}
    return frozenset(found - loops)


def recipes(kernel: Kernel, batch: frozenset[Axis]) -> dict[str, Recipe]:
    """What decides over the values of each symbol; `batch` as `batch_axes` says."""
    found: dict[str, Recipe] = {}
    for grid in kernel.grid:
        if isinstance(grid.tile, str):
            found[grid.tile] = (("batch" if grid.axis in batch else "grid", grid.axis),)
    for loop in kernel.all_loops:
        if isinstance(loop.tile, str):
            found[loop.tile] = (*found.get(loop.tile, ()), ("loop", loop.axis))
    for symbol in kernel.symbols:  # what is left are the numbers of parts of split reductions
        found.setdefault(symbol, ())
    return found


def values_of(recipe: Recipe, device: Device, extent_of: Callable[[Axis], int]) -> list[int]:
    """The values that a symbol may take."""
    found: list[int] | None = None
    for role, axis in recipe:
        if role == "loop":
            top = min(MAX_LOOP_TILE, power_of_two(extent_of(axis)))
            start = min(MIN_LOOP_TILE, top)
            values = [1 << n for n in range(start.bit_length() - 1, top.bit_length())]
            known = found
            found = [v for v in values if known is None or v in known] or values[:1]
        else:
            top = min(largest_grid_tile(device), power_of_two(extent_of(axis)))
            found = [1 << n for n in range(top.bit_length())] if role == "grid" else [1]
    return found or [1 << n for n in range(1, MAX_SPLIT.bit_length())]


def fitting(values: dict[str, list[int]], names: list[str], limit: int = MOST_ASSIGNMENTS) -> None:
    """Drops the coarsest tiles of the longest lists until there are at most `limit` assignments."""
    while math.prod(len(values[n]) for n in names) > limit:
        longest = max(names, key=lambda n: len(values[n]))
        values[longest] = values[longest][:-1]


def table(kernel: Kernel, device: Device, limit: int = MOST_ASSIGNMENTS) -> Table:
    """Every legal assignment of the kernel's symbols, at most `limit` (the coarsest loop tiles are
    dropped first).
    """
    asked = recipes(kernel, batch_axes(kernel))
    values = {symbol: values_of(recipe, device, _own_extent) for symbol, recipe in asked.items()}
    names = sorted(values)
    fitting(values, names, limit)
    grids = np.meshgrid(*(np.array(values[n], np.int64) for n in names), indexing="ij")
    return {name: grid.reshape(-1) for name, grid in zip(names, grids, strict=True)}


def _own_extent(axis: Axis) -> int:
    return axis.size if isinstance(axis.size, int) else MAX_SPLIT


def legal(form: Form, device: Device) -> Number:
    """Which assignments fit: accumulators and the largest intermediate tile in registers, one
    step's operands on chip.
    """
    held = form.accumulators + form.widest <= largest_tile(device)
    loaded = 2 * form.operands <= device.smem_per_block  # two steps in flight at least
    return held & loaded & (form.blocks <= MAX_BLOCKS)


def host_tiles(kernel: Kernel) -> tuple[tuple[Axis, ...], ...]:
    """The axes of each tile that a block holds on a host, where XLA fuses pointwise work into a
    reduction that is no product: the axes of such reductions make no tile wider. Of a product
    (`ir.product`), each side is built and the products of their elements never are.
    """
    stack: list[Node] = []
    inside, found = set[Axis](), dict[tuple[Axis, ...], None]()

    def reduction(monoid: str, body: Node, axes: tuple[Axis, ...]) -> bool:
        """Notes the operands of a reduction; says whether it is a product."""
        product = product_of(monoid, body, axes)
        if product is None:
            stack.append(body)
            return False
        for side in (product.left, product.right):
            found[tuple(dict.fromkeys(a for factor in side for a in factor.axes_free))] = None
        stack.extend((*product.left, *product.right, *product.rest))
        return True

    stack.extend(store.value for store in kernel.stores)
    for loop in kernel.all_loops:
        stack.extend(store.value for store in loop.stores)
        for acc in loop.accumulators:
            reduction(acc.monoid, acc.summand, (loop.axis,))
            stack.extend(() if acc.rescale is None else (acc.rescale,))
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        found[node.axes_free] = None
        if not isinstance(node, Reduce):
            stack.extend(node.index_nodes if isinstance(node, Load) else node.children)
        elif not reduction(node.monoid, node.body, node.axes):
            inside.update(node.axes)
    return tuple(dict.fromkeys(tuple(a for a in axes if a not in inside) for axes in found))


def widest_of(
    tiles: tuple[tuple[Axis, ...], ...], kernel: Kernel, sizes: Mapping[str, Number],
    extent_of: Callable[[Axis], Number],
) -> Number:  # fmt: skip
    """Elements of the largest of a block's tiles, given as `host_tiles` says."""
    cut = {g.axis: g.tile for g in kernel.grid} | {x.axis: x.tile for x in kernel.all_loops}

    def tile(axis: Axis) -> Number:
        size = cut.get(axis, axis.size)
        if isinstance(size, str):
            return sizes[size]
        return cut[axis] if axis in cut else extent_of(axis)

    widest: Number = 1
    for axes in tiles:
        widest = maximum(widest, math.prod(tile(axis) for axis in axes))
    return widest


def evaluate(kernel: Kernel, device: Device) -> tuple[Table, Form]:
    """The table of assignments that fit and the closed forms on it. The table is empty where
    nothing fits.
    """
    sizes = table(kernel, device)
    rows = len(next(iter(sizes.values()), np.zeros(1)))
    form = forms(kernel, sizes)
    if device.kind == "cpu":
        widest = widest_of(host_tiles(kernel), kernel, sizes, _own_extent)
        form = replace(form, widest=widest)
    fits = np.broadcast_to(legal(form, device), rows)
    return {n: column[fits] for n, column in sizes.items()}, _rows(form, fits)


def _rows(form: Form, fits: npt.NDArray[np.bool_]) -> Form:
    def take(number: Number) -> Number:
        return np.broadcast_to(np.asarray(number, np.float64), fits.shape)[fits]

    return form.map(take)
