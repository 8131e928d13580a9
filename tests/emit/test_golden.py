"""Emitted source is read by people: it is kept in `golden/`, and every change of it is a diff."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from prism_jax.emit import emit
from prism_jax.instantiate.plan import Plan, Schedule

from .graphs import Case, attention, cases, logsumexp, lora, split_k

EVEN = cases("float16")
LAX = [
    lora(32, 64, 64, 16, "float16"),
    attention(1, 21, 21, 5, "float32"),
    split_k(16, 128, 64, 2, "float16"),
    logsumexp(32, 32, 4, "float32"),
]


def source(case: Case, backend: str) -> str:
    schedules = (Schedule(),) * len(case.sgraph.kernels)
    plan = Plan(case.sgraph, backend, "H100", tuple(sorted(case.sizes.items())), schedules)
    return emit(plan).source


@pytest.mark.parametrize("case", EVEN, ids=lambda c: c.name)
def test_triton(case: Case, golden) -> None:
    golden(f"{case.name}.triton", source(case, "triton"))


@pytest.mark.parametrize("case", LAX, ids=lambda c: c.name)
def test_lax(case: Case, golden) -> None:
    golden(f"{case.name}.lax", source(case, "lax"))


def test_source_is_the_same_in_every_process() -> None:
    program = (
        "from tests.emit.graphs import cases\n"
        "from tests.emit.test_golden import source\n"
        "import hashlib\n"
        "texts = [source(c, b) for c in cases('bfloat16', False) for b in ('triton', 'lax')]\n"
        "print(hashlib.sha256(''.join(texts).encode()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
