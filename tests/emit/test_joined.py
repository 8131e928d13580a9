"""Kernels that the search joins: what a kernel's other stores need is written beside them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import device
from prism_jax.emit import lax_blocks
from prism_jax.emit.triton import emit
from prism_jax.explore import Form, search
from prism_jax.extract import lift
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.sgraph import SGraph
from tests.explore.test_grouping import joins

from .graphs import Case
from .harness import agree, expected, inputs, interpreted
from .test_compile import compiled

H100 = device.row("H100")
MOST = 4


def gradient(q: Any, k: Any, v: Any) -> Any:
    """Of causal attention's squares, in all arguments."""

    def total(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.T / np.sqrt(q.shape[-1])
        seen = jnp.tril(jnp.ones(scores.shape, bool))
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1)
        return jnp.sum((weights @ v).astype(jnp.float32) ** 2)

    return jax.grad(total, (0, 1, 2))(q, k, v)


def joined(rows: int, features: int, dtype: Any, precision: str = "highest") -> list[SGraph]:
    """Plans of kernels only, one of which writes a maximum beside the sum that it belongs to."""
    structs = [jax.ShapeDtypeStruct((rows, features), dtype)] * 3
    with jax.default_matmul_precision(precision):
        program = lift(jax.make_jaxpr(gradient)(*structs), "gradient")
    found: list[SGraph] = []
    for candidate in search(program, [Form(program)], H100, 60).candidates:
        graph = candidate.sgraph
        if any(map(joins, graph.kernels)) and len(graph.kernels) == len(graph.nodes):
            found.append(graph)
    assert found, "nothing is joined: the test has lost its subject"
    return found[:MOST]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_blocks_compute_the_gradient(dtype: str, cut: bool) -> None:
    for graph in joined(40, 16, jnp.dtype(dtype)):
        case = Case(graph, {str(s): 2 if s.startswith("S_") else 16 for s in graph.symbols})
        given = inputs(case)
        wanted = expected(case, given)
        agree(case, interpreted(case, given, Schedule(cut=cut)), wanted, dtype)
        call = lax_blocks.emit(graph, case.sizes, cut=cut).call
        agree(case, call(*(given[t.name] for t in graph.inputs)), wanted, dtype)


def test_they_compile() -> None:
    for graph in joined(2048, 64, jnp.float16, "default")[:2]:
        sizes = {str(s): 2 if s.startswith("S_") else 32 for s in graph.symbols}
        schedules = [Schedule(cut=True)] * len(graph.kernels)
        sources = [k.source for k in emit(graph, sizes, schedules)]
        for capability in (80, 90):
            assert all(binary.stack == 0 for binary in compiled(sources, capability))
