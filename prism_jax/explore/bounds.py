"""Time of a kernel from its closed forms: a lower bound that holds for every instance, and an
estimate to rank by.

The bound is max(compulsory bytes / bandwidth, loaded bytes / what the ports to the L2 cache carry,
arithmetic / rate of its unit) + launch, the on-chip rates scaled by the share of multiprocessors
that have a block. It is of a call whose operands come from memory: where the L2 cache holds them
from the call before, less may be measured, and then what was measured decides. Where an
emitter may skip steps behind a mask, only the bytes that the mask cannot spare count. The estimate
adds what real kernels pay and no bound may assume: whole waves, the latency of a step, rates that
are not quite reached. It is never below the bound (design, section 6.5). Both are computed with
numbers of any kind: arrays of sizes, or symbols of a tape.
"""

from __future__ import annotations

from typing import Any

from prism_jax.device import Device, Unit
from prism_jax.ir.counts import Number, maximum, minimum, rounded_up, select
from prism_jax.ir.forms import Form

START_S = 0.8e-6
WAVE_S = 1.2e-6
STEP_S = 0.2e-6
STEP_BYTES_PER_S = 200e9
STAGES = 4
MOST_BLOCKS_PER_SM = 8
BLOCK_BANDWIDTH_SHARE = 1.5
DOT_SHARE = 0.8
OTHER_SHARE = 0.7
OVERLAP = 0.85
CPU_STEP_S = 40e-6
"""Constants of the estimate, fitted to 4,655 measured (kernel, sizes, schedule) triples of 74
kernels on an H100: the first choice is within 1.14x of the best measured one in geometric mean, 85
% of the best are among the first ten. A block draws `STEP_BYTES_PER_S` and pays `STEP_S` in every
step, a wave of blocks pays `WAVE_S`; one multiprocessor alone can draw `BLOCK_BANDWIDTH_SHARE`
times its even share of the memory's bandwidth.
"""
PORT_BYTES, BOOST = 64, 1.13
"""A multiprocessor takes so many bytes from the L2 cache in a cycle, at most, and its clock runs so
many times faster than its row says, at most. Kernels were measured that load 0.6 of it, 1.7 times
the rate that the row gives the cache.
"""


def unit_of(unit: Any) -> Unit:
    """The device row's rate for a unit of `Form.arithmetic`."""
    if isinstance(unit, tuple):
        return "f16" if unit[1] in ("float16", "bfloat16") else "tf32"
    return "special" if unit == "special" else "f32"


def bound(form: Form, device: Device) -> Number:
    """Seconds below which no instance with these sizes can run."""
    share = minimum(1.0, form.blocks / device.sm_count)
    slowest = (form.certain + form.stored) / device.dram_bytes_per_s
    if not form.masked:
        slowest = maximum(slowest, form.loaded / (_ports(device) * share))
        for unit, count in form.arithmetic.items():
            slowest = maximum(slowest, count / (device.rate(unit_of(unit)) * share))
    return slowest + least_launch(device)


def _ports(device: Device) -> float:
    """Bytes per second that all blocks together can load, wherever they come from."""
    if device.kind == "cpu":
        return device.l2_bytes_per_s
    return PORT_BYTES * device.sm_count * device.clock * BOOST


def least_launch(device: Device) -> float:
    """Seconds that a launch takes beyond what it moves and computes, at least."""
    return device.launch_s if device.kind == "cpu" else min(device.launch_s, START_S)


def least_estimate(memory: float, work: float, device: Device) -> float:
    """A lower bound on the estimate of any kernel that moves bytes for `memory` seconds and
    computes for `work` seconds (with every block busy, at the share of the rate that is reached).
    """
    if device.kind == "cpu":
        return max(memory, work) + CPU_STEP_S + device.launch_s
    return float(_overlapping(memory, work, WAVE_S))


def least_on_grid(
    blocks: Number, moved: Number, loaded: Number, work: Number, device: Device
) -> Number:
    """As `least_estimate`, of one kernel with so many blocks, which load so many bytes together."""
    share = minimum(1.0, blocks / device.sm_count)
    reached = minimum(1.0, share * BLOCK_BANDWIDTH_SHARE)
    memory = maximum(moved / reached, loaded / (device.l2_bytes_per_s * share))
    work = work / share
    if device.kind == "cpu":
        return maximum(memory, work) + CPU_STEP_S + device.launch_s
    return _overlapping(memory, work, WAVE_S)


def least_times(form: Form, device: Device) -> tuple[Number, Number]:
    """Seconds of memory and of arithmetic of which the estimate is made, with every block busy. At
    the largest tiles and a single part, where least is read and computed twice, no assignment has
    less of either.
    """
    moved = (form.compulsory + form.stored) / device.dram_bytes_per_s
    return maximum(moved, form.loaded / device.l2_bytes_per_s), _work(form, device, 1.0)


def estimate(form: Form, device: Device) -> Number:
    """Seconds that a good kernel with these sizes is expected to take: the slowest of memory,
    arithmetic and latency, which overlap but not quite.
    """
    blocks = 1.0 * form.blocks
    share = minimum(1.0, blocks / device.sm_count)
    memory, work = _memory(form, device, share), _work(form, device, share)
    if device.kind == "cpu":
        latency = maximum(1.0, form.steps) * blocks * CPU_STEP_S  # a loop of lax runs step by step
        return maximum(memory, work) + latency + device.launch_s
    shared = device.smem_per_block / maximum(1.0, 1.0 * STAGES * form.operands)
    held = 4.0 * (form.accumulators + form.widest)
    registers = 4.0 * device.regs_per_sm / maximum(1.0, held)
    at_once = minimum(maximum(minimum(shared, registers), 1.0), float(MOST_BLOCKS_PER_SM))
    waves = rounded_up(blocks / (device.sm_count * at_once))
    step = STEP_S + form.operands / STEP_BYTES_PER_S
    latency = waves * (form.steps * step + WAVE_S)
    ragged = rounded_up(blocks / device.sm_count) * device.sm_count / blocks
    several = (blocks > device.sm_count) & (blocks < 4 * device.sm_count)
    quantised = select(several, ragged, 1.0)
    memory, work = memory * quantised, work * quantised
    return _overlapping(memory, work, latency)


def _overlapping(memory: Number, work: Number, latency: Number) -> Number:
    slowest = maximum(maximum(memory, work), latency)
    return START_S + slowest + (1 - OVERLAP) * (memory + work + latency - slowest)


def _memory(form: Form, device: Device, share: Number) -> Number:
    compulsory = form.compulsory + form.stored
    reached = device.dram_bytes_per_s * minimum(1.0, share * BLOCK_BANDWIDTH_SHARE)
    return maximum(compulsory / reached, form.loaded / (device.l2_bytes_per_s * share))


def _work(form: Form, device: Device, share: Number) -> Number:
    total: Number = 0.0
    for unit, count in form.arithmetic.items():
        reached = DOT_SHARE if isinstance(unit, tuple) else OTHER_SHARE
        total = total + count / (device.rate(unit_of(unit)) * reached * share)
    return total
