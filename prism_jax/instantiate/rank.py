"""Sizes and schedules of one kernel, ranked by closed form before anything is compiled.

In: a kernel, a device, numbers for the symbols that other kernels share. Out: at most `count`
(sizes, schedule) pairs, best estimate first: for a GPU that of `expect`, which knows the schedule,
for a host that of `explore.bounds`. Near-equal estimates differ in tile shape on purpose: the model
cannot tell them apart, the device can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.explore.bounds import estimate
from prism_jax.explore.masked import cut_loops, steps_left
from prism_jax.explore.sizes import Table, evaluate
from prism_jax.instantiate.expect import Shape, expected
from prism_jax.instantiate.plan import Schedule
from prism_jax.instantiate.work import share_left, wasted
from prism_jax.ir.forms import Form
from prism_jax.ir.sgraph import Kernel

Sizes = tuple[tuple[str, int], ...]
Try = tuple[float, Sizes, Schedule]
"""Estimated seconds, sizes, schedule."""

IN_FLIGHT = 10 * 1024
"""Bytes of operands on their way in a block that keep its share of the memory busy."""
STREAMED_SHARE = 0.8
"""Of the L2 cache: hints are for kernels that move more."""
DEEPEST = 8
WARPS, MORE_WARPS = (4, 8, 2, 1), 16
"""Of first tries, which wins where the model sees no difference first; of what is tried next to
what measured well.
"""
SWIZZLES = (4, 8)
EVEN = 0.015
"""So much worse is a pipeline held to be for each step more or less than keep the memory busy."""
NEAR = 1.15
"""What is next to the best is tried up to so many times its estimate: of 315 tries beyond, one was
faster, by 3 %.
"""


@dataclass(frozen=True)
class Row:
    """What the closed forms say of one assignment: estimated seconds with the best schedule, bytes
    of one step's operands, blocks; `place`: among all assignments.
    """

    seconds: float
    operands: float
    blocks: float
    place: int


class Ranking:
    """Every legal assignment of one kernel's symbols, best estimate first.

    `shared` fixes the symbols that other kernels of the plan share. `structure_s` is the best
    estimate of the search's model, which candidates are costed with. `streams`: the cache does not
    hold what it reads and writes.
    """

    def __init__(self, kernel: Kernel, device: Device, shared: Mapping[str, int]) -> None:
        self.kernel, self.device = kernel, device
        table, form = evaluate(kernel, device)
        rows = np.size(form.blocks)
        keep = np.ones(rows, np.bool_)
        for symbol, value in shared.items():
            if symbol in table:
                keep &= table[symbol] == value
        chosen = np.flatnonzero(keep)
        searched = form.left(steps_left(kernel))
        self.structure_s = float(estimate(searched, device)[chosen].min(initial=np.inf))
        self.cuts = bool(cut_loops(kernel))
        if self.cuts:
            form = form.left(share_left(kernel, table))
        moved = np.broadcast_to(np.asarray(form.compulsory + form.stored, np.float64), rows)[chosen]
        # What the cache holds, hints only make others lose: a kernel that gained 5 % by them where
        # it was called again and again took 1.4 times as long among other kernels.
        self.streams = bool(moved.min(initial=np.inf) >= STREAMED_SHARE * device.l2_bytes)
        self._shapes, self._seconds = self._times(form, table, rows, chosen)
        best = self._seconds.min(axis=0, initial=np.inf)
        order = np.argsort(best, kind="stable")
        operands, blocks = (np.broadcast_to(x, rows)[chosen] for x in (form.operands, form.blocks))
        names = sorted(table)
        # a kernel without symbols has one assignment, of nothing
        values = np.array([table[name][chosen][order] for name in names])
        values = values.reshape(len(names), len(order)).T.tolist()
        facts = [np.asarray(fact, np.float64)[order].tolist() for fact in (best, operands, blocks)]
        self.rows: dict[Sizes, Row] = {
            tuple(zip(names, numbers, strict=True)): Row(*row)
            for numbers, *row in zip(values, *facts, order.tolist(), strict=True)
        }

    def shapes(self, sizes: Sizes) -> dict[tuple[int, int], float]:
        """The estimates of an assignment by (warps, stages), best first."""
        column = self._seconds[:, self.rows[sizes].place]
        order = np.argsort(column, kind="stable")
        return {self._shapes[n]: float(column[n]) for n in order if np.isfinite(column[n])}

    def _times(
        self, form: Form, table: Table, rows: int, chosen: npt.NDArray[np.intp]
    ) -> tuple[list[tuple[int, int]], npt.NDArray[np.float64]]:
        """(warps, stages), and for each the estimates of the chosen rows."""
        if self.device.kind != "gpu":
            return [(4, 3)], estimate(form, self.device)[chosen][None]
        form = form.map(lambda number: np.broadcast_to(np.asarray(number), rows)[chosen])
        short = np.broadcast_to(wasted(self.kernel, table), rows)[chosen]
        looped = bool(self.kernel.loops)
        shapes = [
            (warps, stages)
            for stages in (range(2, DEEPEST + 1) if looped else (3,))
            for warps in (*WARPS, MORE_WARPS)
        ]
        times = np.stack(
            [expected(form, short, self.device, Shape(*shape, looped)) for shape in shapes]
        )
        if looped:  # among equal depths for the model, what keeps the memory busy and no more
            wanted = np.clip(np.ceil(IN_FLIGHT / np.maximum(1, form.operands)), 3, DEEPEST)
            stages = np.array([stages for _, stages in shapes])[:, None]
            fits = stages * form.operands <= self.device.smem_per_block
            times = times * (1 + EVEN * np.abs(stages - wanted))
            times = np.where(fits | (stages == 2), times, np.inf)
        return shapes, times

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
        doubled or halved, with as many warps or as many elements for each.
        """
        found = [self._try(sizes, other) for other in self._changed(sizes, schedule)]
        most = NEAR * self._try(sizes, schedule)[0]
        for place, (symbol, value) in enumerate(sizes):
            for other in (value * 2, value // 2):
                near = (*sizes[:place], (symbol, other), *sizes[place + 1 :])
                if near in self.rows:
                    new = self._some(near, 1)[0]
                    same = replace(schedule, num_stages=new.num_stages)
                    alike = replace(same, num_warps=schedule.num_warps * other // value)
                    some = (s for s in (same, alike, new) if 1 <= s.num_warps <= MORE_WARPS)
                    found += [self._try(near, s) for s in dict.fromkeys(some)]
        return [attempt for attempt in found if attempt[0] <= most]

    def _changed(self, sizes: Sizes, schedule: Schedule) -> Iterator[Schedule]:
        row = self.rows[sizes]
        for warps in (*sorted(WARPS), MORE_WARPS):
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
        if self.streams:
            yield replace(schedule, hints=not schedule.hints)

    def _some(self, sizes: Sizes, most: int) -> list[Schedule]:
        """The best schedules by the model, each with other warps: depths differ less."""
        best: dict[int, Schedule] = {}
        for warps, stages in self.shapes(sizes):
            best.setdefault(warps, Schedule(warps, stages, cut=self.cuts))
        usual = [schedule for warps, schedule in best.items() if warps in WARPS]
        return (usual or list(best.values()))[:most]

    def _try(self, sizes: Sizes, schedule: Schedule) -> Try:
        shape = (schedule.num_warps, schedule.num_stages)
        return self.shapes(sizes).get(shape, np.inf), sizes, schedule


def depths(kernel: Kernel, operands: float, device: Device) -> list[int]:
    """Numbers of steps whose operands are on their way at once, the most promising first: enough to
    keep the memory busy, as far as they fit on chip.
    """
    if not kernel.loops:
        return [3]
    wanted = min(DEEPEST, max(3, -(-IN_FLIGHT // max(1, int(operands)))))
    order = sorted(range(2, DEEPEST + 1), key=lambda d: (abs(d - wanted), d < wanted))
    return [d for d in order if d * operands <= device.smem_per_block][:4] or [2]
