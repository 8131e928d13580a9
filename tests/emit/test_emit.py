"""A plan as code: steps in order, every back end the same value, launchers asked once for each
kernel.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from prism_jax.emit import EmittedKernel, emit
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.ir.ops import numpy_dtype

from .graphs import heads, split_k
from .harness import agree, expected, inputs


@pytest.mark.parametrize(
    "case",
    [split_k(16, 64, 32, 2, "float32"), heads(2, 1, 5, 16, 8, "float32")],
    ids=lambda c: c.name,
)
@pytest.mark.parametrize("backend", ["lax", "triton"])
def test_every_plan_runs_everywhere(case: Any, backend: str) -> None:
    kernels = len(case.sgraph.kernels)
    plan = Plan(
        case.sgraph, backend, "H100", tuple(sorted(case.sizes.items())), (Schedule(),) * kernels
    )
    emitted = emit(plan)
    given = inputs(case)
    found = jax.jit(emitted.call)(*(given[t.name] for t in case.sgraph.inputs))
    agree(case, found, expected(case, given), "float32")
    assert len(emitted.kernels) == (kernels if backend == "triton" else 0)
    assert ("import triton" in emitted.source) == (backend == "triton")


def test_a_launcher_runs_the_kernels() -> None:
    from prism_jax.emit.interpret import interpret

    case = split_k(16, 64, 32, 2, "float16")
    plan = Plan(
        case.sgraph, "triton", "H100", tuple(sorted(case.sizes.items())), (Schedule(), Schedule(2))
    )
    asked: list[str] = []

    def launcher(kernel: EmittedKernel) -> Any:
        asked.append(kernel.name)
        types = [(tuple(map(int, t.shape)), numpy_dtype(t.dtype)) for t in kernel.results]
        return lambda *operands: interpret(kernel.source, kernel.grid, operands, types)

    call = emit(plan).launched(launcher)
    given = inputs(case)
    found = [call(*(given[t.name] for t in case.sgraph.inputs)) for _ in range(2)]
    assert asked == ["split_k", "split_k_sum"]
    agree(case, found[1], expected(case, given), "float16")


def test_a_wrong_number_of_arrays_is_an_error() -> None:
    case = split_k(16, 64, 32, 2, "float32")
    emitted = emit(Plan(case.sgraph, "lax", "CPU", tuple(sorted(case.sizes.items()))))
    with pytest.raises(TypeError, match="takes 2 arrays, not 1"):
        emitted.call(np.zeros(3))
