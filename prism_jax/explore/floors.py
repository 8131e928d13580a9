"""How little a group of stores may cost, from a look at its terms: before it has a structure.

In: the stores. Out: seconds below which no estimate of kernels for them is, as recorded numbers.
Few large blocks leave multiprocessors idle, many small ones read operands again and again:
`one_kernel` looks at every grid that the blocks of one kernel may form. Only a split reduction
escapes that, and it takes a second kernel.
"""

from __future__ import annotations

import functools
import math
import operator

from prism_jax.device import Device
from prism_jax.explore.bounds import DOT_SHARE, OTHER_SHARE, least_on_grid, unit_of
from prism_jax.explore.library import elements, leaves, traffic
from prism_jax.explore.masked import possible
from prism_jax.explore.structure import tile_symbol
from prism_jax.explore.symbols import Asked, Measures
from prism_jax.ir.counts import Number, ceil_div, maximum, minimum
from prism_jax.ir.nodes import Axis, Load, Node, Pointwise, Reduce, Store, Tensor
from prism_jax.ir.product import product_of
from prism_jax.ir.program import loads_of, reductions_of, walk

MOST_COLUMNS = 3
"""Axes whose tiles are looked at together; others count with most blocks and fewest reads."""


def work(stores: tuple[Store, ...], device: Device, sizes: Measures) -> Number:
    """Seconds of arithmetic that any kernel for these stores does, with every block busy. Of the
    steps of a loop those count that the mask leaves that cuts most.
    """
    total = _exponentials(stores, device, sizes)
    for node in reductions_of(s.value for s in stores):
        total = total + sizes.once(("product", node), lambda n=node: _product(n, device, sizes))
    return total * _left(stores, sizes)


def _left(stores: tuple[Store, ...], sizes: Measures) -> Number:
    """The least share of steps that a mask leaves."""
    left: Number = 1.0
    for cut in possible(stores):
        left = minimum(left, sizes.left(cut))
    return left


def _product(node: Reduce, device: Device, sizes: Measures) -> Number:
    """Seconds that matrix units need for a product, at the share of their rate that is reached,
    where no cascade can shrink it: every axis of a side stands beside a summed one in some operand.
    """
    product = product_of(node.monoid, node.body, node.axes)
    if product is None:
        return 0.0
    tied: set[Axis] = set()
    for leaf in leaves([*product.left, *product.right]):
        if not set(node.axes).isdisjoint(leaf.axes_free):
            tied.update(leaf.axes_free)
    every = (*product.batch, *product.m, *product.k, *product.n)
    if not tied.issuperset(every):
        return 0.0
    asked = sizes.operand(node.precision.operand) if node.precision else "float32"
    rate = device.rate(unit_of(("dot", asked))) * DOT_SHARE
    return 2.0 * math.prod(sizes.extent(a) for a in every) / rate


def _exponentials(stores: tuple[Store, ...], device: Device, sizes: Measures) -> Number:
    """Seconds of the largest exponential that no rule can take apart: exp(a + b) may become
    exp(a) exp(b) and back, but a leaf with all axes of the sum stays in one of them.
    """
    most: Number = 0.0
    for node in dict.fromkeys(node for s in stores for node in _whole_exponentials(s.value)):
        most = maximum(most, elements(node, sizes))
    return most / (device.rate(unit_of("special")) * OTHER_SHARE)


@functools.lru_cache(maxsize=1 << 14)
def _whole_exponentials(root: Node) -> tuple[Node, ...]:
    nodes = walk([root])
    return tuple(n for n in nodes if isinstance(n, Pointwise) and n.op == "exp" and _whole(n))


def _whole(node: Node) -> bool:
    """Whether a term has a leaf with all of its axes."""
    stack, seen = [node], set[Node]()
    while stack:
        below = stack.pop()
        if below in seen or below.axes_free != node.axes_free:
            continue
        seen.add(below)
        if isinstance(below, Load | Reduce):
            return True
        stack.extend(below.children)
    return False


def one_kernel(stores: tuple[Store, ...], device: Device, asked: Asked) -> Number:
    """Seconds that one kernel for these stores is estimated to take at least, for every tile of the
    axes that its grid may cut.
    """
    cuttable = _grid(stores)
    loads = loads_of(s.value for s in stores)
    # smaller tiles of an axis that all loads have cost no reads
    free = [a for a in cuttable if all(a in load.axes_free for load in loads)]
    tiled = [a for a in cuttable if a not in free][:MOST_COLUMNS]
    columns = asked.symbols.columns({tile_symbol(a): (("grid", a),) for a in tiled})
    blocks = {a: ceil_div(asked.extent(a), columns[tile_symbol(a)][0]) for a in tiled}
    read: dict[Tensor, Number] = {}
    for load in loads:
        again = (blocks[a] for a in tiled if a not in load.axes_free)
        once = elements(load, asked) * asked.each(load.tensor)
        bytes_ = functools.reduce(operator.mul, again, once)
        known = read.get(load.tensor)
        read[load.tensor] = bytes_ if known is None else maximum(known, bytes_)
    loaded = sum(read.values()) * _left(stores, asked)
    every = math.prod(asked.extent(a) for a in cuttable if a not in tiled)
    return least_on_grid(
        functools.reduce(operator.mul, blocks.values(), every),
        traffic(stores, device, asked),
        loaded,
        work(stores, device, asked),
        device,
    )


def _grid(stores: tuple[Store, ...]) -> list[Axis]:
    """The axes that a kernel's grid may cut: those that every store has."""
    axes = [dict.fromkeys(a for i in store.index for a in i.axes_free) for store in stores]
    return [a for a in axes[0] if all(a in others for others in axes)]
