"""What no implementation of a row can beat on a device, and which of its parts the device is at.

In: programs and a device row. Out: microseconds for each part of the device that the row needs:
memory (inputs and results once), products (matrix units), exponentials and other special functions,
instructions. The largest is the floor; the device does all of them at the same time at best. The
memory's part is for operands that come from memory: calls repeated with operands that the L2 cache
holds are below it.

Work that a mask of iotas makes superfluous is not counted: of `where(j <= i, s, -1e30)` half of s,
and half of what reduces its exponential. A multiplication whose product is added to something costs
nothing beside the addition.

>>> Floor({"memory": 11.2, "products": 10.7, "special": 9.1}).us
11.2
>>> print(Floor({"memory": 11.2, "products": 10.7}).explain(16.7, (("parts", 13.6), ("out", 3.1))))
1.49x of the floor 11.2 us (memory; products 10.7); kernels: parts 13.6, out 3.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_jax.device import Device
from prism_jax.ir.counts import distinct, width
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Node, Pointwise, Reduce
from prism_jax.ir.ops import OPS
from prism_jax.ir.product import product_of
from prism_jax.ir.program import Program, walk

__all__ = ["Floor", "floor"]

#: Positions of an axis that masks are looked at.
POSITIONS = 512
ADDS = ("add", "sub")


@dataclass(frozen=True)
class Floor:
    """Microseconds by part of the device."""

    parts: Mapping[str, float]

    @property
    def us(self) -> float:
        """The floor."""
        return max(self.parts.values(), default=0.0)

    def explain(self, measured_us: float, kernels: Sequence[tuple[str, float]]) -> str:
        """How far a measured time is from the floor, and where the rest is, in one line."""
        if self.us <= 0.0:
            return ""
        ranked = sorted(self.parts.items(), key=lambda part: -part[1])
        others = [f"{name} {us:.1f}" for name, us in ranked[1:] if us >= 0.1 * self.us]
        first = "; ".join([ranked[0][0], *([", ".join(others)] if others else [])])
        text = f"{measured_us / self.us:.2f}x of the floor {self.us:.1f} us ({first})"
        if len(kernels) > 1:
            text += "; kernels: " + ", ".join(f"{name} {us:.1f}" for name, us in kernels)
        return text


def floor(programs: Sequence[Program], device: Device) -> Floor:
    """The floor of programs that run one after the other; all sizes are numbers."""
    found: dict[str, float] = {}
    for program in programs:
        for name, seconds in _parts(program, device).items():
            found[name] = found.get(name, 0.0) + seconds * 1e6
    return Floor({name: us for name, us in found.items() if us > 0.0})


def _parts(program: Program, device: Device) -> dict[str, float]:
    roots = [store.value for store in program.outputs]
    nodes = list(walk(roots))
    shares = _shares(roots, nodes)
    adds = {c for n in nodes if isinstance(n, Pointwise) and n.op in ADDS for c in n.args}
    adds |= {n.body for n in nodes if isinstance(n, Reduce) and n.monoid == "sum"}
    products, special, instructions = 0.0, 0.0, 0.0
    for node in nodes:
        work = shares[node] * _extent(node.axes_free)
        if isinstance(node, Reduce):
            work = shares[node] * _extent(node.body.axes_free)
            if product_of(node.monoid, node.body, node.axes) is not None and node.precision:
                half = node.precision.operand in ("float16", "bfloat16")
                products += 2.0 * work / device.rate("f16" if half else "tf32")
            else:
                instructions += work
        elif isinstance(node, Pointwise):
            cost = OPS[node.op].cost
            if cost == "special":
                special += work
            elif cost == "add" or (cost == "mul" and node not in adds):
                instructions += work
    moved = sum(_extent_of(store.tensor.shape) * width(store.tensor.dtype)
                for store in program.outputs)  # fmt: skip
    read: dict[Any, float] = {}
    for node in nodes:
        if isinstance(node, Load):
            least = float(distinct(node, lambda a: int(a.size))) * width(node.tensor.dtype)
            read[node.tensor] = max(read.get(node.tensor, 0.0), least)
    return {
        "memory": (moved + sum(read.values())) / device.dram_bytes_per_s,
        "products": products,
        "special": special / device.rate("special"),
        "instructions": instructions / device.rate("f32"),
    }


def _extent(axes: Any) -> float:
    return math.prod(float(int(axis.size)) for axis in axes)


def _extent_of(shape: Sequence[Any]) -> float:
    return math.prod(float(int(size)) for size in shape)


def _shares(roots: Sequence[Node], nodes: Sequence[Node]) -> dict[Node, float]:
    """For each node the share of its values that matter: what is below a mask, and what is made of
    masked values.
    """
    made: dict[Node, float] = {}
    for node in nodes:  # arguments come before what they are arguments of
        if isinstance(node, Pointwise):
            made[node] = min(
                [_true(node), *(made[c] for c in node.args if not isinstance(c, Reduce))]
            )
        else:
            made[node] = made[node.body] if isinstance(node, Reduce) else 1.0
    asked: dict[Node, float] = dict.fromkeys(roots, 1.0)
    for node in reversed(nodes):
        share = asked.get(node, 0.0) * (_true(node) if isinstance(node, Pointwise) else 1.0)
        for child in node.children:
            asked[child] = max(asked.get(child, 0.0), share)
    return {node: min(made[node], asked.get(node, 1.0)) for node in nodes}


def _true(node: Pointwise) -> float:
    """Of a choice between values and a constant, how often it is the values; else 1."""
    if node.op != "where" or not any(isinstance(arg, Const) for arg in node.args[1:]):
        return 1.0
    axes = sorted(node.args[0].axes_free, key=lambda axis: axis.name)
    mask = _mask(node.args[0], axes)
    if mask is None:
        return 1.0
    share = float(np.mean(mask))
    return share if isinstance(node.args[2], Const) else 1.0 - share


def _mask(node: Node, axes: Sequence[Axis]) -> Any:
    """Values of an expression of iotas and constants at some positions; None for anything else."""
    if isinstance(node, Const):
        return np.asarray(node.value)
    if isinstance(node, Iota):
        size = int(node.axis.size)
        where = np.unique(np.linspace(0, size - 1, min(size, POSITIONS)).round())
        return where.reshape([-1 if axis == node.axis else 1 for axis in axes])
    if isinstance(node, Pointwise):
        args = [_mask(arg, axes) for arg in node.args]
        return None if any(arg is None for arg in args) else OPS[node.op].f64(node.parameter, *args)
    return None
