"""Seconds that one kernel is expected to take with a schedule: what the ranking of a GPU's tries
goes by.

In: closed forms on columns of sizes, how short the pieces of rows are that a block wants, a device,
warps and pipeline stages. Out: a column of seconds, infinite where registers surely do not do.
`explore.bounds` asks what a good kernel of a structure takes, whatever its schedule; here near
neighbours are told apart, and what is expected is what is measured: call after call on the same
operands, which the L2 cache holds if they fit.

The terms, each with its cause:

* traffic: operands come from memory, or from the L2 cache where all fit; a piece of a row that is
  shorter than a cache line wastes part of it; one multiprocessor alone draws `SM_SHARE` times its
  even share of the L2 cache's bandwidth, so that a third as many blocks keep the memory busy;
* flight: a block has `stages - 1` steps of operands on their way, and they take `LATENCY_S`;
* work: units reach their rates only with enough warps;
* steps: what a step of a loop costs however little it does, more where more warps wait for each
  other;
* ends: the first operands arrive before anything is computed, the last are computed on after
  everything has arrived;
* starts: each block is started, the more warps the dearer;
* exchange: threads with fewer than `THREAD_ELEMENTS` elements each hand values to each other.

>>> from prism_jax.device import row
>>> flat = Form(blocks=np.array([128, 1024]), steps=0, loaded=2**20, compulsory=2**20, stored=2**20)
>>> (expected(flat, 1.0, row("H100"), Shape(4, 3, looped=False)) * 1e6).round(2).tolist()
[2.24, 3.64]
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.explore.bounds import unit_of
from prism_jax.ir.forms import Form

__all__ = ["Shape", "expected"]

Column = npt.NDArray[np.float64]

# Fitted by random search, then rounded, to 5,040 measured (kernel, sizes, schedule) triples of 327
# kernels of the suites mirage, prism and flash on an H200: the first choice is within 1.06x of the
# best measured one in geometric mean (1.09x by the hand-fitted constants before), the best is among
# the first ten for 94 % of kernels (85 %). Fitted to half of the kernels and judged by the others:
# 1.06x and 90 %. Of `kernels/tries/h200`, whose mirage was tuned with them: 1.05x to 1.08x and 94 %
# to 95 %. Absolute times come out a third too long: only their order counts here.
START_S, LATENCY_S, BLOCK_S = 1e-6, 0.2e-6, 0.05e-6
STEP_S, WARP_STEP_S, EXCHANGE_S = 0.01e-6, 0.01e-6, 0.025e-6
SM_SHARE = 3.5
CACHED_SHARE = 0.35
"""Of the L2 cache: so much of it a call finds as the call before left it."""
SHORT_COST = 0.2
"""Of a line that is fetched for a shorter piece, this part of the rest is lost."""
DOT_SHARE, OTHER_SHARE, SPECIAL_SHARE = 0.4, 0.9, 1.0
DOT_WARPS, OTHER_WARPS = 4.4, 4
"""Of the units' rates, what is reached, and the warps of one multiprocessor that it takes."""
PER_ELEMENT = 4.0
"""Instructions for each 2 bytes loaded or stored: addresses, masks, conversions."""
TILE_SHARE, BASE_REGISTERS, MOST_REGISTERS = 0.3, 18, 200
"""Of the widest tile, what is held in registers at once; registers of a thread beside; by this
count, how many a thread may have: beyond, 8 of 14 kernels spilled, and none was among the best.
"""
TAIL, OVERLAP = 0.6, 0.5
THREAD_ELEMENTS = 20
MOST_WARPS, MOST_BLOCKS, SYSTEM_BYTES = 64, 32, 1024
"""Of one multiprocessor; shared memory that a block costs beside its own."""


@dataclass(frozen=True)
class Shape:
    """The part of a schedule that the model knows; `looped`: the kernel has a loop."""

    num_warps: int
    num_stages: int
    looped: bool


def expected(form: Form, short: Any, device: Device, shape: Shape) -> Column:
    """Seconds of a launch.

    Args:
      form: closed forms, without the masked steps that are left out.
      short: how many times more bytes than are used the lines have that are touched
        (`work.wasted`).
      device: a GPU's row.
      shape: warps and stages.
    """
    blocks, steps, loaded, compulsory, stored, operands, held, widest = (
        np.asarray(x, np.float64)
        for x in (form.blocks, form.steps, form.loaded, form.compulsory, form.stored,
                  form.operands, form.accumulators, form.widest)
    )  # fmt: skip
    warps, looped = shape.num_warps, float(shape.looped)
    threads = 32 * warps
    registers = BASE_REGISTERS + (held + TILE_SHARE * widest) / threads

    each = np.ceil(blocks / device.sm_count)  # blocks of the busiest multiprocessor
    on_chip = device.smem_per_block / (SYSTEM_BYTES + looped * shape.num_stages * operands)
    by_registers = device.regs_per_sm / (threads * registers)
    at_once = np.minimum(np.minimum(on_chip, by_registers), min(MOST_WARPS / warps, MOST_BLOCKS))
    at_once = np.maximum(1.0, np.floor(at_once))
    waves, together = np.ceil(each / at_once), np.minimum(each, at_once)
    busiest = each / blocks  # the part of everything that the busiest multiprocessor does

    waste = 1 + SHORT_COST * (np.asarray(short, np.float64) - 1)
    cached = compulsory + stored < CACHED_SHARE * device.l2_bytes
    rate = np.where(cached, device.l2_bytes_per_s, device.dram_bytes_per_s)
    from_memory = (compulsory * waste + stored) / rate
    sm_rate = SM_SHARE * device.l2_bytes_per_s / device.sm_count
    mine = loaded * waste * busiest
    ahead = np.maximum(1.0, np.minimum(shape.num_stages - 1, steps)) * operands
    flying = together * (ahead if shape.looped else loaded / blocks)
    overlapping = [
        np.maximum(from_memory, loaded * waste / device.l2_bytes_per_s),
        mine / sm_rate,
        mine * LATENCY_S / np.maximum(flying, 1.0),
        _work(form, device, warps * together) * device.sm_count * busiest,
        waves * steps * (STEP_S + WARP_STEP_S * warps),
    ]
    slowest = functools.reduce(np.maximum, overlapping)
    ends = waves * (LATENCY_S + looped * TAIL * operands / sm_rate)
    spare = threads * THREAD_ELEMENTS / np.maximum(1.0, np.maximum(widest, held))
    exchange = EXCHANGE_S * waves * np.log2(np.maximum(1.0, spare))
    starts = START_S + BLOCK_S * each * warps
    found = starts + ends + exchange + slowest
    found = found + (1 - OVERLAP) * (sum(overlapping) - slowest)
    return np.where(registers > MOST_REGISTERS, np.inf, found)


def _work(form: Form, device: Device, warps: Column) -> Column:
    """Seconds of all units of an evenly busy device, so many warps on each multiprocessor."""
    total = np.zeros_like(warps)
    elements = np.asarray(form.loaded + form.stored, np.float64) / 2
    other = PER_ELEMENT * elements / (device.rate("f32") * OTHER_SHARE)
    for unit, count in form.arithmetic.items():
        name = unit_of(unit)
        if isinstance(unit, tuple):
            reached = np.minimum(1.0, warps / DOT_WARPS) * DOT_SHARE
            total = total + np.asarray(count) / (device.rate(name) * reached)
        else:
            share = SPECIAL_SHARE if name == "special" else OTHER_SHARE
            other = other + np.asarray(count) / (device.rate(name) * share)
    return total + other / np.minimum(1.0, warps / OTHER_WARPS)
