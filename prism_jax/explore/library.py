"""What XLA is expected to need for a piece of the program, and what any launch for it must move.

In: stores and a device. Out: seconds. XLA's own version of a piece competes with kernels of ours,
so it is costed by how XLA runs it: one pass for each reduction, pointwise work fused into it, and
the operands of a matrix product in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prism_jax.device import Device
from prism_jax.ir.forms import is_product, width
from prism_jax.ir.nodes import Axis, Load, Node, Pointwise, Reduce, Store, Tensor
from prism_jax.ir.ops import OPS
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Kernel, LibraryCall


@dataclass(frozen=True)
class Costed:
    """Nodes that compute a group of targets, with the best sizes the closed forms know.

    `bound` and `estimate` in seconds; `sizes` are the estimate's choice. `why` names the structure
    in words.
    """

    nodes: tuple[Kernel | LibraryCall, ...]
    bound: float
    estimate: float
    sizes: tuple[tuple[str, int], ...]
    why: str


def library_cost(name: str, stores: tuple[Store, ...], device: Device) -> Costed:
    """One call to XLA for the stores, as XLA runs it: every reduction is a pass of its own that
    reads loads and earlier reductions, with pointwise work fused into it; the operands of a matrix
    product are arrays in memory, so computed ones are written first.
    """
    total = 0.0
    for node in walk(s.value for s in stores):
        if not isinstance(node, Reduce):
            continue
        flops = 2.0 * math.prod(_int(a) for a in node.body.axes_free)
        moved = sum(_bytes(n) for n in _leaves([node.body])) + _elements(node) * 4.0
        launches = 1
        if node.monoid == "sum" and is_product(node.body):
            half = node.precision is not None and node.precision.operand in ("float16", "bfloat16")
            rate = device.rate("f16" if half else "tf32") * 0.7
            for factor in node.body.children:
                if not isinstance(factor, Load | Reduce):
                    moved += _elements(factor) * (4.0 if half else 8.0)
                    launches += 1
        else:
            rate = device.rate("f32")
        if device.kind == "cpu":
            total += _pointwise(node.body, device)
        total += max(flops / rate, moved / device.dram_bytes_per_s) + launches * device.launch_s
    written = sum(
        math.prod(_int(a) for i in s.index for a in i.axes_free) * width(s.tensor.dtype)
        for s in stores
    )
    read = sum(_bytes(n) for n in walk(s.value for s in stores) if isinstance(n, Load))
    last = sum(_bytes(n) for n in _leaves([s.value for s in stores]))
    floor = (written + read) / device.dram_bytes_per_s + device.launch_s
    if not all(isinstance(s.value, Reduce) for s in stores):
        total += (written + last) / device.dram_bytes_per_s + device.launch_s
    return Costed((LibraryCall(name, "xla", stores),), floor, max(total, floor), (), "XLA")


def _pointwise(root: Node, device: Device) -> float:
    """Seconds of the pointwise work of one pass, which a host does not do in the shadow of its
    memory traffic.
    """
    total, seen, stack = 0.0, set[Node](), [root]
    while stack:
        node = stack.pop()
        if node in seen or isinstance(node, Load | Reduce):
            continue
        seen.add(node)
        if isinstance(node, Pointwise) and OPS[node.op].cost != "free":
            unit = "special" if OPS[node.op].cost == "special" else "f32"
            total += _elements(node) / device.rate(unit)
        stack.extend(node.children)
    return total


def traffic_floor(stores: tuple[Store, ...], device: Device) -> float:
    """Seconds that any launch for these stores takes: it writes them, reads once what they are made
    of, and is launched.
    """
    written = sum(
        math.prod(_int(a) for i in s.index for a in i.axes_free) * width(s.tensor.dtype)
        for s in stores
    )
    read: dict[Tensor, float] = {}
    for node in walk(s.value for s in stores):
        if isinstance(node, Load):
            read[node.tensor] = max(read.get(node.tensor, 0.0), _bytes(node))
    return (written + sum(read.values())) / device.dram_bytes_per_s + device.launch_s


def _leaves(roots: list[Node]) -> list[Load | Reduce]:
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


def _elements(node: Node) -> float:
    return float(math.prod(_int(a) for a in node.axes_free))


def _int(axis: Axis) -> int:
    return axis.size if isinstance(axis.size, int) else 1


def _bytes(load: Load | Reduce) -> float:
    if isinstance(load, Reduce):
        return _elements(load) * 4.0
    whole = math.prod(int(s) for s in load.tensor.shape if isinstance(s, int))
    once = math.prod(_int(a) for a in load.axes_free)
    return float(min(whole, once) * width(load.tensor.dtype))
