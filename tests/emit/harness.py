"""Inputs, oracle and comparison that all tests of emitters share."""

from __future__ import annotations

from typing import Any

import numpy as np

from prism_jax.ir.evaluate import evaluate_sgraph
from prism_jax.ir.nodes import Tensor
from prism_jax.ir.ops import numpy_dtype

from .graphs import Case

#: Error allowed, relative to the largest element: some units in the last place of what is stored,
# and of
#: what goes into the products.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-12}


def inputs(case: Case, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(seed)

    def one(tensor: Tensor) -> np.ndarray[Any, Any]:
        shape = tuple(int(s) for s in tensor.shape)
        if tensor.dtype.startswith("int"):
            return draw.integers(-2, 9, shape).astype(tensor.dtype)
        return draw.normal(size=shape).astype(numpy_dtype(tensor.dtype))

    return {t.name: one(t) for t in case.sgraph.inputs}


def expected(
    case: Case, given: dict[str, np.ndarray[Any, Any]]
) -> tuple[np.ndarray[Any, Any], ...]:
    return evaluate_sgraph(case.sgraph, case.sizes, given)


def agree(case: Case, found: Any, wanted: Any, dtype: str) -> None:
    assert len(found) == len(wanted)
    for tensor, f, w in zip(case.sgraph.outputs, found, wanted, strict=True):
        f = np.asarray(f)
        assert f.dtype == numpy_dtype(tensor.dtype), tensor
        assert f.shape == w.shape, tensor
        if not np.issubdtype(w.dtype, np.floating):
            np.testing.assert_array_equal(f, w, err_msg=str(tensor))
            continue
        scale = max(1.0, float(np.max(np.abs(w), initial=0.0)))
        error = np.max(np.abs(f.astype(np.float64) - w), initial=0.0) / scale
        assert error <= TOLERANCE[dtype], f"{tensor} of {case.name}: error {error:.2e}"


def interpreted(case: Case, given: dict[str, Any], schedule: Any) -> tuple[Any, ...]:
    """The outputs of an sGraph whose kernels run in Triton's interpreter; library calls run as
    plain jnp.
    """
    from prism_jax.emit import jnp as emit_jnp
    from prism_jax.emit.interpret import interpret
    from prism_jax.emit.triton import emit_kernel
    from prism_jax.ir.concrete import concrete
    from prism_jax.ir.sgraph import Kernel

    graph = concrete(case.sgraph, case.sizes)
    tensors = dict(given)
    for node in graph.nodes:
        if isinstance(node, Kernel):
            emitted = emit_kernel(node, graph.compute, schedule)
            operands = [tensors[t.name] for t in emitted.operands]
            types = [(tuple(map(int, t.shape)), numpy_dtype(t.dtype)) for t in emitted.results]
            results = interpret(emitted.source, emitted.grid, operands, types)
            written = emitted.results
        else:
            function = emit_jnp.emit_call(node, graph.compute)
            results = function.call(*(tensors[t.name] for t in function.operands))
            written = function.results
        tensors |= {t.name: np.asarray(r) for t, r in zip(written, results, strict=True)}
    return tuple(tensors[t.name] for t in case.sgraph.outputs)
