"""Emitted Triton compiles for sm_80 and sm_90 without a GPU, within registers and shared memory."""

from __future__ import annotations

import re

import pytest

from prism_jax.device import row
from prism_jax.emit.binary import Binary, KernelSource, fits
from prism_jax.emit.compile import CompileError, compile_many
from prism_jax.emit.triton import emit
from prism_jax.instantiate.plan import Schedule

from .graphs import Case, attention, cases, gatedmlp, layernorm, lora, rmsnorm_linear

DEVICES = {80: "A100", 90: "H100"}


def sources(case: Case, schedule: Schedule) -> list[KernelSource]:
    schedules = [schedule] * len(case.sgraph.kernels)
    return [k.source for k in emit(case.sgraph, case.sizes, schedules)]


def compiled(found: list[KernelSource], capability: int) -> list[Binary]:
    results = compile_many(found, capability, workers=2)
    errors = [str(r) + r.detail for r in results if isinstance(r, CompileError)]
    assert not errors, errors[0]
    return [r for r in results if isinstance(r, Binary)]


@pytest.mark.parametrize("capability", sorted(DEVICES))
def test_every_case_compiles(capability: int) -> None:
    every = [*cases("float16"), *cases("bfloat16", big=False)]
    found = [s for case in every for s in sources(case, Schedule())]
    for binary in compiled(found, capability):
        assert fits(binary, row(DEVICES[capability])) is None
        assert binary.stack == 0
        assert binary.registers <= 128
        assert binary.shared <= 48 * 1024


#: name: (case at the size of a workload, schedule, most registers, most bytes of shared memory)
REAL = {
    "lora": (
        lora(16, 256, 4096, 16, "float16").tiles(T_i=16, T_j=32, T_k=128),
        Schedule(4, 3),
        80,
        48 * 1024,
    ),
    "gatedmlp 64 rows": (
        gatedmlp(64, 4096, 4096, "float16").tiles(T_i=64, T_j=32, T_k=128),
        Schedule(4, 4),
        80,
        160 * 1024,
    ),
    "gatedmlp 8 rows": (
        gatedmlp(8, 4096, 4096, "float16").tiles(T_i=8, T_j=32, T_k=128),
        Schedule(4, 4),
        64,
        80 * 1024,
    ),
    "rmsnorm_linear": (
        rmsnorm_linear(2, 4096, 6144, "float16").tiles(T_i=2, T_j=64, T_k=128),
        Schedule(4, 4),
        80,
        80 * 1024,
    ),
    "attention": (
        attention(16, 4096, 4096, 128, "float16", True, -1e30).tiles(T_i=128, T_j=64),
        Schedule(8, 3),
        192,
        160 * 1024,
    ),
    "layernorm": (
        layernorm(4096, 4096, "float16").tiles(T_i=1, T_k=1024),
        Schedule(4, 3),
        48,
        16 * 1024,
    ),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_workload_sizes_are_pipelined_and_fit(name: str) -> None:
    case, schedule, registers, shared = REAL[name]
    (binary,) = compiled(sources(case, schedule), 90)
    assert binary.stack == 0
    assert binary.registers <= registers
    assert binary.shared <= shared
    assert "cp.async" in binary.ptx
    assert re.search(r"st\.global\.v[24]", binary.ptx)
    if name != "layernorm":
        assert "wgmma" in binary.ptx or "mma.sync" in binary.ptx
