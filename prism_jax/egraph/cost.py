"""What one term costs: a roofline on arithmetic by unit and on the bytes of what is kept, additive
over shared terms.

The work of a node is the product of the sizes of its axes. A sum of products whose factors fall
into two groups with axes of their own is a matrix product and runs on that unit; everything else
runs on the scalar units. The result of every reduction counts as written and read once, inputs as
read once, pointwise results as never kept. That ranks forms of a program; which tensors a kernel
really keeps is the explorer's business.

>>> i, k, j = Axis("i", 128), Axis("k", 256), Axis("j", 512)
>>> model = CostModel(device.row("H100"))
>>> left, right = split([frozenset((i, k)), frozenset((k, j)), frozenset((k,))])
>>> left, right   # a scale of k goes to the smaller side
((0, 2), (1,))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from prism_jax import device
from prism_jax.egraph.decisions import extent, plain
from prism_jax.ir.counts import maximum
from prism_jax.ir.nodes import Axis, Precision
from prism_jax.ir.ops import OPS

Free = frozenset[Axis]
ONE = Fraction(1)
_WORK = {"free": 0, "add": 1, "mul": 1, "special": 1, "slow": 8}


@dataclass(frozen=True)
class Cost:
    """Seconds by the model; floating-point operations (a multiply-add is two); bytes kept and read;
    and `operands`, the elements that must be computed before they can enter a contraction (a
    library call takes none of them).
    """

    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0
    operands: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.operands + other.operands,
        )

    @property
    def plain(self) -> Cost:
        """The cost as plain numbers (see `decisions`)."""
        return Cost(*(plain(n) for n in (self.seconds, self.flops, self.bytes, self.operands)))


@dataclass(frozen=True)
class Operand:
    """A factor of a contraction: its axes, its power, and whether it is a pointwise result rather
    than an input or a reduction.
    """

    free: Free
    exponent: Fraction = ONE
    computed: bool = False


def power_work(e: Fraction) -> int:
    """Instructions per element of raising to a power: a division or a root costs about eight."""
    if e.denominator > 1 or e < 0:
        return 8
    return e.numerator - 1


@dataclass(frozen=True)
class CostModel:
    """Costs of terms on a device; `width` is the number of bytes of an element that is kept."""

    device: device.Device
    width: int = 4

    @cached_property
    def _scalar(self) -> float:
        return 1 / self.device.rate("f32")

    def pointwise(self, axes: Free, operations: float, special: int = 0) -> Cost:
        """`operations` instructions and `special` function calls at every point."""
        points = extent(axes)
        seconds = points * (operations * self._scalar + special / self.device.rate("special"))
        return Cost(seconds, round(points * (operations + special)), 0)

    def operator(self, name: str, axes: Free) -> Cost:
        """One row of the operator table at every point."""
        kind = OPS[name].cost
        return self.pointwise(axes, 0 if kind == "special" else _WORK[kind], int(kind == "special"))

    def load(self, axes: Free) -> Cost:
        """Reading an input once."""
        read = extent(axes) * self.width
        return Cost(read / self.device.dram_bytes_per_s, 0, read)

    def reduction(self, body: Free, result: Free) -> Cost:
        """Folding a body into a result that is kept."""
        return self._kept(self.pointwise(body, 1), result)

    def contraction(
        self, operands: Sequence[Operand], result: Free, precision: Precision | None
    ) -> Cost:
        """A sum of a product of powers: two groups of factors are formed, then multiplied and added
        at every point. A square is a factor twice.
        """
        operands = [
            o
            for x in operands
            for o in ([replace(x, exponent=ONE)] * 2 if x.exponent == 2 else [x])
        ]
        left, right = split([x.free for x in operands])
        groups = [[operands[n] for n in side] for side in (left, right) if side]
        sides = [frozenset[Axis]().union(*(x.free for x in group)) for group in groups]
        sides += [frozenset[Axis]()] * (2 - len(sides))
        points = extent(sides[0] | sides[1])
        grouping = [
            self.pointwise(side, len(group) - 1 + sum(power_work(x.exponent) for x in group))
            for side, group in zip(sides, groups, strict=False)
        ]
        unit = "f32"
        if right and sides[0] - sides[1] and sides[1] - sides[0]:
            unit = _unit(precision)
        rate = self.device.rate("f32") if unit == "f32" else self.device.rate(unit)
        formed = sum(
            extent(side)
            for side, group in zip(sides, groups, strict=False)
            if len(group) > 1 or any(x.computed for x in group)
        )
        work = self._kept(Cost(2 * points / rate, 2 * points, 0, formed), result)
        for part in grouping:
            work = work + part
        return work

    def _kept(self, work: Cost, result: Free) -> Cost:
        moved = 2 * extent(result) * self.width
        seconds = maximum(work.seconds, moved / self.device.dram_bytes_per_s)
        return Cost(seconds, work.flops, moved, work.operands)


def _unit(precision: Precision | None) -> device.Unit:
    if precision is None or precision.operand == "float64" or precision.algorithm == "highest":
        return "f32"
    return "f16" if precision.operand in ("float16", "bfloat16") else "tf32"


def split(factors: Sequence[Free]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two groups of factors such that forming both takes least work; a single factor stands alone
    (and is squared by nobody).
    """
    count = len(factors)
    if count < 2:
        return tuple(range(count)), ()
    best: tuple[float, int] = (math.inf, 0)
    for mask in range(1, 1 << (count - 1)):
        # the first factor is always on the left
        right = [n for n in range(count) if mask >> (count - 1 - n) & 1]
        left = [n for n in range(count) if n not in right]
        work = sum(_forming([factors[n] for n in side]) for side in (left, right))
        best = min(best, (work, mask))
    mask = best[1]
    right = tuple(n for n in range(count) if mask >> (count - 1 - n) & 1)
    return tuple(n for n in range(count) if n not in right), right


def _forming(factors: Sequence[Free]) -> int:
    """Elements computed and held when factors are multiplied into one operand."""
    axes = frozenset[Axis]().union(*factors)
    return extent(axes) * len(factors)
