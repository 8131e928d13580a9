"""Sizes and schedules of one kernel, ranked by closed form before anything is compiled.

In: a kernel, a device, numbers for the symbols that other kernels share. Out: at most `count`
(sizes, schedule) pairs, best estimate first. Near-equal estimates differ in tile shape on purpose:
the model cannot tell them apart, the device can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from prism_jax.device import Device
from prism_jax.explore.bounds import estimate
from prism_jax.explore.sizes import evaluate
from prism_jax.instantiate.plan import Schedule
from prism_jax.instantiate.work import cut_loops, less, share_left, spread, wasted
from prism_jax.ir.sgraph import Kernel

Sizes = tuple[tuple[str, int], ...]
Try = tuple[float, Sizes, Schedule]
"""Estimated seconds, sizes, schedule."""

IN_FLIGHT = 48 * 1024
"""Bytes of operands on their way in a block that keep its share of the memory busy."""
DEEPEST = 8
SWIZZLES = (4, 8)


@dataclass(frozen=True)
class Row:
    """What the closed forms say of one assignment: estimated seconds, elements of the largest tile,
    bytes of one step's operands, blocks.
    """

    seconds: float
    widest: float
    operands: float
    blocks: float


class Ranking:
    """Every legal assignment of one kernel's symbols, best estimate first.

    `shared` fixes the symbols that other kernels of the plan share.
    """

    def __init__(self, kernel: Kernel, device: Device, shared: Mapping[str, int]) -> None:
        self.kernel, self.device = kernel, device
        table, form = evaluate(kernel, device)
        self.cuts = bool(cut_loops(kernel))
        if self.cuts:
            form = less(form, share_left(kernel, table))
        if device.kind == "gpu":
            form = spread(form, wasted(kernel, table))
        rows = np.size(form.blocks)
        keep = np.ones(rows, np.bool_)
        for symbol, value in shared.items():
            if symbol in table:
                keep &= table[symbol] == value
        chosen = np.flatnonzero(keep)
        times = estimate(form, device)[chosen]
        order = np.argsort(times, kind="stable")
        facts = [np.broadcast_to(x, rows) for x in (form.widest, form.operands, form.blocks)]
        self.rows: dict[Sizes, Row] = {
            tuple((symbol, int(column[row])) for symbol, column in sorted(table.items())): Row(
                float(seconds), *(float(fact[row]) for fact in facts)
            )
            for row, seconds in zip(chosen[order], times[order], strict=True)
        }

    def first(self, count: int) -> list[Try]:
        """What to try first: the best sizes for each of the best ways to cut up the grid, then the
        best sizes, a third of all with a second schedule.
        """
        several = max(1, count * 2 // 3)
        grid = {g.tile for g in self.kernel.grid}
        ways: dict[Sizes, Sizes] = {}
        for sizes in self.rows:
            ways.setdefault(tuple(item for item in sizes if item[0] in grid), sizes)
        apart = list(ways.values())[: several // 2]
        best = list(dict.fromkeys([*apart, *self.rows]))[:several]
        best.sort(key=lambda sizes: self.rows[sizes].seconds)
        found = [self._try(sizes, schedule) for sizes in best for schedule in self._some(sizes, 1)]
        for sizes in best[: count - len(best)]:
            found += [self._try(sizes, s) for s in self._some(sizes, 2)[1:]]
        return found

    def around(self, sizes: Sizes, schedule: Schedule) -> list[Try]:
        """What to try next to what measured well: one choice of the schedule changed, or one symbol
        doubled or halved.
        """
        found = [self._try(sizes, other) for other in self._changed(sizes, schedule)]
        for place, (symbol, value) in enumerate(sizes):
            for other in (value * 2, value // 2):
                near = (*sizes[:place], (symbol, other), *sizes[place + 1 :])
                if near in self.rows:
                    new = self._some(near, 1)[0]
                    same = replace(schedule, num_stages=new.num_stages)
                    found += [self._try(near, s) for s in dict.fromkeys((same, new))]
        return found

    def _changed(self, sizes: Sizes, schedule: Schedule) -> Iterator[Schedule]:
        row = self.rows[sizes]
        for warps in (1, 2, 4, 8, 16):
            if warps in (schedule.num_warps // 2, schedule.num_warps * 2):
                yield replace(schedule, num_warps=warps)
        for stages in depths(self.kernel, row.operands, self.device):
            if stages != schedule.num_stages:
                yield replace(schedule, num_stages=stages)
        if self.cuts:
            yield replace(schedule, cut=not schedule.cut)
        if self.kernel.loops and row.blocks > self.device.sm_count:
            for group in SWIZZLES:
                yield replace(schedule, swizzle=1 if schedule.swizzle == group else group)
        yield replace(schedule, hints=not schedule.hints)

    def _some(self, sizes: Sizes, most: int) -> list[Schedule]:
        row = self.rows[sizes]
        found = schedules(self.kernel, row.widest, row.operands, self.device, self.cuts)
        return list(found)[:most]

    def _try(self, sizes: Sizes, schedule: Schedule) -> Try:
        return self.rows[sizes].seconds, sizes, schedule


def schedules(
    kernel: Kernel, widest: float, operands: float, device: Device, cut: bool = False
) -> Iterator[Schedule]:
    """Warps by the size of the largest tile; pipeline depths, where there is a loop, for which the
    operands fit on chip. Loops are cut where they can be.
    """
    warps = [8, 4] if widest >= 8192 else [4, 8] if widest >= 2048 else [4, 2]
    for num_stages in depths(kernel, operands, device):
        for num_warps in warps:
            yield Schedule(num_warps, num_stages, cut=cut)


def depths(kernel: Kernel, operands: float, device: Device) -> list[int]:
    """Numbers of steps whose operands are on their way at once, the most promising first: enough to
    keep the memory busy, as far as they fit on chip.
    """
    if not kernel.loops:
        return [3]
    wanted = min(DEEPEST, max(3, -(-IN_FLIGHT // max(1, int(operands)))))
    order = sorted(range(2, DEEPEST + 1), key=lambda d: (abs(d - wanted), d < wanted))
    return [d for d in order if d * operands <= device.smem_per_block][:4] or [2]
