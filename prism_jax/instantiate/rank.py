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


def ranked(
    kernel: Kernel, device: Device, shared: Mapping[str, int], count: int
) -> list[tuple[float, Sizes, Schedule]]:
    """(estimated seconds, sizes, schedule) to try, best first."""
    table, form = evaluate(kernel, device)
    rows = np.asarray(form.blocks).size
    keep = np.ones(rows, np.bool_)
    for symbol, value in shared.items():
        if symbol in table:
            keep &= table[symbol] == value
    chosen = np.flatnonzero(keep)
    times = estimate(form, device)[chosen]
    order = chosen[np.argsort(times, kind="stable")]
    found: list[tuple[float, Sizes, Schedule]] = []
    seconds = dict(zip(chosen.tolist(), times.tolist(), strict=True))
    for row in order:
        sizes = tuple((symbol, int(column[row])) for symbol, column in sorted(table.items()))
        widest = float(np.broadcast_to(form.widest, rows)[row])
        operands = float(np.broadcast_to(form.operands, rows)[row])
        for schedule in schedules(kernel, widest, operands, device):
            found.append((seconds[int(row)], sizes, schedule))
        if len(found) >= count:
            break
    return found[:count]


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
