"""What the search finds, emitted: Triton in the interpreter and blocked lax against the program."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from prism_jax import device
from prism_jax.emit import EmittedKernel, emit, lax_blocks
from prism_jax.emit.interpret import interpret
from prism_jax.explore import Form, search
from prism_jax.explore import mapping as mapping_room
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.strict import stricter
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.ops import numpy_dtype
from tests.explore.functions import SMALL, program


def launch(kernel: EmittedKernel) -> Any:
    types = [(tuple(map(int, t.shape)), numpy_dtype(t.dtype)) for t in kernel.results]
    return lambda *operands: interpret(kernel.source, kernel.grid, operands, types)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_candidates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping_room, "LOOP_AT_LEAST", 8)  # so that small axes are looped over
    source = program(name)
    found = search(source, [Form(source)], device.row("H100"))
    draw = np.random.default_rng(0)
    shapes = [tuple(map(int, t.shape)) for t in source.inputs]
    arrays = [draw.standard_normal(shape) for shape in shapes]
    dtypes = [numpy_dtype(t.dtype) for t in source.inputs]
    inputs = [x.astype(dtype) for x, dtype in zip(arrays, dtypes, strict=True)]
    wanted = evaluate(source, {t.name: x for t, x in zip(source.inputs, inputs, strict=True)})
    tried = [c for c in found.candidates if c.kernels][:3]
    assert tried
    for number, candidate in enumerate(tried):
        sgraph = stricter(candidate.sgraph)  # one TF32 pass would hide other errors
        sizes = {s: int(2 ** draw.integers(3, 6)) for s, _ in candidate.sizes}
        products = ("dot", "mulsum")[number % 2]
        schedules = (Schedule(products=products),) * candidate.kernels
        plan = Plan(sgraph, "triton", "H100", tuple(sorted(sizes.items())), schedules)
        blocks = lax_blocks.emit(sgraph, sizes)
        for got in (emit(plan).launched(launch)(*inputs), jax.jit(blocks.call)(*inputs)):
            for a, b in zip(got, wanted, strict=True):
                scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
                error = float(np.max(np.abs(np.asarray(a, np.float64) - b), initial=0.0))
                assert error <= 1e-5 * scale, f"{candidate.why} {sizes} {products}"
