"""What XLA is expected to need for a piece of the program, and what any launch for it must move.

In: stores and a device. Out: seconds. XLA's own version of a piece competes with kernels of ours,
so it is costed by how XLA runs it: one pass for each reduction, pointwise work fused into it, and
the operands of a matrix product in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from prism_jax.device import Device
from prism_jax.explore.bounds import least_launch
from prism_jax.explore.closed import OWN
from prism_jax.explore.symbols import Measures
from prism_jax.ir.counts import Number, certain_loads, maximum, minimum
from prism_jax.ir.nodes import Load, Node, Pointwise, Reduce, Store, Tensor
from prism_jax.ir.ops import OPS
from prism_jax.ir.product import product_of
from prism_jax.ir.program import loads_of, reductions_of
from prism_jax.ir.sgraph import Kernel, LibraryCall

Sizes = tuple[tuple[str, int], ...]
Details = Callable[[], tuple[float, Sizes]]


@dataclass(frozen=True, eq=False)
class Costed:
    """Nodes that compute a group of targets, with the best sizes the closed forms know.

    `bound` and `estimate` in seconds; `sizes` are the estimate's choice. `why` names the structure
    in words. `parts`: what it is put together from, if it is; each part has symbols of its own.
    Most are only compared, so bound and sizes are found (by `details`) when they are asked for.
    """

    nodes: tuple[Kernel | LibraryCall, ...]
    estimate: float
    why: str
    details: Details
    parts: tuple[Costed, ...] = ()

    @cached_property
    def _details(self) -> tuple[float, Sizes]:
        return self.details()

    @property
    def bound(self) -> float:
        """Seconds below which no instance can run."""
        return self._details[0]

    @property
    def sizes(self) -> Sizes:
        """The estimate's choice."""
        return self._details[1]


def by_library(
    name: str, stores: tuple[Store, ...], seconds: float, moved: float, device: Device
) -> Costed:
    """One call to XLA that takes `seconds`, of which `moved` for what any implementation moves."""
    floor = moved + least_launch(device)
    call = LibraryCall(name, "xla", stores)
    return Costed((call,), max(seconds, floor), "XLA", lambda: (floor, ()))


def library_seconds(stores: tuple[Store, ...], device: Device, sizes: Measures = OWN) -> Number:
    """Seconds of the stores as XLA runs them: every reduction is a pass of its own that reads loads
    and earlier reductions, with pointwise work fused into it; the operands of a matrix product are
    arrays in memory, so computed ones are written first.
    """
    total: Number = 0.0
    for node in reductions_of(s.value for s in stores):
        for part in sizes.once(("pass", node), lambda n=node: _pass(n, device, sizes)):
            total = total + part
    written = sum(_stored(s, sizes) for s in stores)
    last = sum(_bytes(n, sizes) for n in leaves([s.value for s in stores]))
    if not all(isinstance(s.value, Reduce) for s in stores):
        total = total + (written + last) / device.dram_bytes_per_s + device.launch_s
    return total


def _pass(node: Reduce, device: Device, sizes: Measures) -> tuple[Number, ...]:
    """Seconds of one reduction: pointwise work that nothing hides, the pass itself, launches."""
    flops = 2.0 * math.prod(sizes.extent(a) for a in node.body.axes_free)
    moved = sum(_bytes(n, sizes) for n in leaves([node.body])) + elements(node, sizes) * 4.0
    launches = 1
    product = product_of(node.monoid, node.body, node.axes)
    if product is not None:
        asked = node.precision and sizes.operand(node.precision.operand)
        half = asked in ("float16", "bfloat16")
        rate = device.rate("f16" if half else "tf32") * 0.7
        for factor in node.body.children:
            if not isinstance(factor, Load | Reduce):
                moved += elements(factor, sizes) * (4.0 if half else 8.0)
                launches += 1
    else:
        rate = device.rate("f32")
    slower = maximum(flops / rate, moved / device.dram_bytes_per_s)
    own = _pointwise(node.body, device, sizes) if device.kind == "cpu" else 0.0
    return own, slower, launches * device.launch_s


def _pointwise(root: Node, device: Device, sizes: Measures) -> Number:
    """Seconds of the pointwise work of one pass, which a host does not do in the shadow of its
    memory traffic.
    """
    seen, stack = set[Node](), [root]
    total: Number = 0.0
    while stack:
        node = stack.pop()
        if node in seen or isinstance(node, Load | Reduce):
            continue
        seen.add(node)
        if isinstance(node, Pointwise) and OPS[node.op].cost != "free":
            unit = "special" if OPS[node.op].cost == "special" else "f32"
            total = total + elements(node, sizes) / device.rate(unit)
        stack.extend(node.children)
    return total


def traffic(
    stores: tuple[Store, ...], device: Device, sizes: Measures = OWN, certain: bool = False
) -> Number:
    """Seconds in which any launch for these stores moves its bytes: it writes them, and reads once
    what they are made of. `certain`: without what a mask may spare; then no implementation at all
    is faster.
    """
    written = sum(_stored(s, sizes) for s in stores)
    read: dict[Tensor, Number] = {}
    roots = [s.value for s in stores]
    for node in certain_loads(roots) if certain else loads_of(roots):
        least = sizes.distinct(node) * sizes.each(node.tensor)
        known = read.get(node.tensor)
        read[node.tensor] = least if known is None else maximum(known, least)
    return (written + sum(read.values())) / device.dram_bytes_per_s


def _stored(store: Store, sizes: Measures) -> Number:
    axes = dict.fromkeys(a for i in store.index for a in i.axes_free)
    return math.prod(sizes.extent(a) for a in axes) * sizes.each(store.tensor)


def leaves(roots: list[Node]) -> list[Load | Reduce]:
    """The loads and reductions that terms are made of, not what is inside those reductions."""
    found: dict[Load | Reduce, None] = {}
    stack, seen = list(roots), set[Node]()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Load | Reduce):
            found[node] = None
        else:
            stack.extend(node.children)
    return list(found)


def elements(node: Node, sizes: Measures) -> Number:
    """How many elements a term has."""
    return math.prod(sizes.extent(a) for a in node.axes_free)


def _bytes(load: Load | Reduce, sizes: Measures) -> Number:
    once = elements(load, sizes)
    if isinstance(load, Reduce):
        return once * 4.0
    whole = sizes.elements(load.tensor)
    return (once if whole is None else minimum(whole, once)) * sizes.each(load.tensor)
