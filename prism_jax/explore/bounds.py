"""Time of a kernel from its closed forms: a lower bound that holds for every instance, and an estimate to rank by.

The bound is max(compulsory bytes / bandwidth, loaded bytes / L2 bandwidth, arithmetic / rate of its unit) + launch, the on-chip rates
scaled by the share of multiprocessors that have a block. The estimate adds what real kernels pay and no bound may assume: whole
waves, latency of a step, matrix tiles padded to the unit's minimum. Only the bound may cut (design, section 6.5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device, Unit
from prism_jax.ir.forms import Form

Column = npt.NDArray[np.float64]

STEP_LATENCY_S = 0.25e-6
START_LATENCY_S = 1.0e-6
BLOCK_BANDWIDTH_SHARE = 2.0
"""One multiprocessor alone can draw about this many times its even share of the device memory's bandwidth."""


def unit_of(unit: Any) -> Unit:
    """The device row's rate for a unit of `Form.arithmetic`."""
    if isinstance(unit, tuple):
        return "f16" if unit[1] in ("float16", "bfloat16") else "tf32"
    return "special" if unit == "special" else "f32"


def bound(form: Form, device: Device) -> Column:
    """Seconds below which no instance with these sizes can run."""
    share = np.minimum(1.0, np.asarray(form.blocks) / device.sm_count)
    times = [
        np.asarray(form.compulsory + form.stored) / device.dram_bytes_per_s,
        np.asarray(form.loaded) / (device.l2_bytes_per_s * share),
    ]
    for unit, count in form.arithmetic.items():
        times.append(np.asarray(count) / (device.rate(unit_of(unit)) * share))
    return np.maximum.reduce([np.broadcast_to(t, share.shape) for t in times]) + device.launch_s


def estimate(form: Form, device: Device) -> Column:
    """Seconds that a good kernel with these sizes is expected to take."""
    blocks = np.asarray(form.blocks, np.float64)
    waves = np.ceil(blocks / device.sm_count)
    share = np.minimum(1.0, blocks / device.sm_count)
    quantised = np.where(blocks > device.sm_count, waves * device.sm_count / blocks, 1.0)
    memory = np.maximum(
        np.asarray(form.compulsory + form.stored)
        / (device.dram_bytes_per_s * np.minimum(1.0, share * BLOCK_BANDWIDTH_SHARE)),
        np.asarray(form.loaded) / (device.l2_bytes_per_s * share),
    )
    work = sum(
        (np.asarray(n) / (device.rate(unit_of(u)) * (0.6 if isinstance(u, tuple) else 1.0) * share)
         for u, n in form.arithmetic.items()),
        np.zeros_like(blocks),
    )  # fmt: skip
    latency = START_LATENCY_S + np.asarray(form.steps) * STEP_LATENCY_S * np.minimum(waves, 4.0)
    if device.kind == "cpu":
        latency = np.asarray(form.steps) * blocks * 0.5e-6 / device.sm_count
    return np.maximum(memory * quantised, work * quantised) + 0.25 * np.minimum(memory, work) + latency + device.launch_s
