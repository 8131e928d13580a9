"""Stands in for `prism_jax.measure.on_device` in a worker: a kernel's name says what it does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from prism_jax.ir.nodes import Tensor
from prism_jax.launch.value import Launch
from prism_jax.measure.sketch import Reading

LIMIT = 1 << 20
_launches: Sequence[Launch] = ()
_started = False
_writes: dict[str, float] = {"wrong": 0.0}


class ContextLostError(Exception):
    pass


class ProfileError(Exception):
    pass


class OverwrittenError(Exception):
    pass


def warm() -> None:
    with open(os.environ["FAKE_DEVICE_LOG"] + ".warm", "a") as log:
        log.write(f"warm {os.getpid()}\n")


def start(memory_bytes: int | None) -> int:
    global _started
    if not _started:
        _started = True
        with open(os.environ["FAKE_DEVICE_LOG"], "a") as log:
            log.write(f"start {os.getpid()}\n")
    return memory_bytes or LIMIT


def build(launches: Sequence[Launch], inputs: tuple[Tensor, ...], room: int) -> None:
    global _launches
    assert _started
    assert room > 0
    if any(launch.binary.name == "unfit" for launch in launches):
        raise ValueError("kernel unfit takes 2 arrays, not 1")
    names = {tensor.name for tensor in inputs}
    assert all(operand.name in names for launch in launches for operand in launch.operands)
    _launches = launches


def probe() -> None:
    names = [launch.binary.name for launch in _launches]
    if "illegal" in names:
        raise ContextLostError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
    if "crash" in names:
        os.abort()
    if "hang" in names:
        time.sleep(60.0)
    if "stray" in names:
        raise OverwrittenError("wrote into its inputs")
    if "large" in names:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
    if {"gas", "spark"} <= set(names):  # harmless alone
        os.abort()


def read() -> list[Reading]:
    probe()
    if any(launch.binary.name == "blind" for launch in _launches):
        raise ProfileError("no permission to profile")
    return [
        Reading(1e-6 * launch.binary.shared, (np.full(4, _writes.get(launch.binary.name, 1.0)),))
        for launch in _launches
    ]
