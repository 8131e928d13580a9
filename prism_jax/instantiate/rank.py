"""Sizes and schedules of one kernel, ranked by closed form before anything is compiled.

In: a kernel, a device, numbers for the symbols that other kernels share. Out: at most `count`
(sizes, schedule) pairs, best estimate first. Near-equal estimates differ in tile shape on purpose:
the model cannot tell them apart, the device can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from prism_jax.device import Device
from prism_jax.explore.bounds import estimate
from prism_jax.explore.sizes import evaluate
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.sgraph import Kernel

Sizes = tuple[tuple[str, int], ...]
Try = tuple[float, Sizes, Schedule]
"""Estimated seconds, sizes, schedule."""


class Ranking:
    """Every legal assignment of one kernel's symbols, best estimate first.

    `shared` fixes the symbols that other kernels of the plan share.
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
        times = estimate(form, device)[chosen]
        order = np.argsort(times, kind="stable")
        widest = np.broadcast_to(form.widest, rows)
        operands = np.broadcast_to(form.operands, rows)
        self.rows: dict[Sizes, tuple[float, float, float]] = {
            tuple((symbol, int(column[row])) for symbol, column in sorted(table.items())): (
                float(seconds),
                float(widest[row]),
                float(operands[row]),
            )
            for row, seconds in zip(chosen[order], times[order], strict=True)
        }

    def first(self, count: int) -> list[Try]:
        """What to try first: the best sizes with the schedule that suits them, half with two."""
        best = list(self.rows)[: max(1, count * 2 // 3)]
        found = [self._try(sizes, schedule) for sizes in best for schedule in self._some(sizes, 1)]
        for sizes in best[: count - len(best)]:
            found += [self._try(sizes, s) for s in self._some(sizes, 2)[1:]]
        return found

    def around(self, sizes: Sizes) -> list[Try]:
        """What to try next to sizes that measured well: their other schedules, and their sizes
        with one symbol doubled or halved.
        """
        found = [self._try(sizes, schedule) for schedule in self._some(sizes, 16)]
        for place, (symbol, value) in enumerate(sizes):
            for other in (value * 2, value // 2):
                near = (*sizes[:place], (symbol, other), *sizes[place + 1 :])
                if near in self.rows:
                    found += [self._try(near, schedule) for schedule in self._some(near, 2)]
        return found

    def _some(self, sizes: Sizes, most: int) -> list[Schedule]:
        _, widest, operands = self.rows[sizes]
        return list(schedules(self.kernel, widest, operands, self.device))[:most]

    def _try(self, sizes: Sizes, schedule: Schedule) -> Try:
        return self.rows[sizes][0], sizes, schedule


def schedules(kernel: Kernel, widest: float, operands: float, device: Device) -> Iterator[Schedule]:
    """Warps by the size of the largest tile; pipeline depths, where there is a loop, for which the
    operands fit on chip.
    """
    warps = [8, 4] if widest >= 8192 else [4, 8] if widest >= 2048 else [4, 2]
    depths = (
        [d for d in (3, 4, 2, 5) if d * operands <= device.smem_per_block] if kernel.loops else [3]
    )
    for num_stages in depths or [2]:
        for num_warps in warps:
            yield Schedule(num_warps, num_stages)
