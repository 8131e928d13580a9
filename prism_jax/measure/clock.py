"""Times of candidate kernels and plans on the device that is there.

In: functions of arrays and the tensors that they take. Out: seconds per call. Kernels that compete
are timed in one compiled chain under one profile (a kernel duration does not depend on its
neighbours' launches), because tracing and profiling each alone would cost a hundred times what they
run. A launch that errors is an error, never a time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax.ir.nodes import Tensor

Function = Callable[..., Sequence[Any]]

BATCH = 16
ITERATIONS = 7


def random_inputs(tensors: Sequence[Tensor], seed: int = 0) -> list[jax.Array]:
    """Arrays for timing: normal floats, small non-negative integers; never zeros, which run faster
    than data.
    """
    keys = jax.random.split(jax.random.key(seed), max(1, len(tensors)))
    found: list[jax.Array] = []
    for key, tensor in zip(keys, tensors, strict=False):
        shape = tuple(int(s) for s in tensor.shape)
        dtype = jnp.dtype(tensor.dtype)
        if jnp.issubdtype(dtype, jnp.floating):
            found.append((jax.random.normal(key, shape, jnp.float32) * 0.25).astype(dtype))
        elif dtype == jnp.bool_:
            found.append(jax.random.bernoulli(key, 0.5, shape))
        else:
            found.append(jax.random.randint(key, shape, 0, 2).astype(dtype))
    return found


def kernel_seconds(
    functions: Sequence[Function], inputs: Sequence[jax.Array]
) -> list[float | Exception]:
    """Device time of each function (one kernel each) on the same inputs; an exception where it does
    not run.
    """
    found: list[float | Exception] = []
    for start in range(0, len(functions), BATCH):
        batch = functions[start : start + BATCH]
        try:
            found += _profiled(batch, inputs)
        except Exception:  # one of them does not run: find out which, one by one
            for function in batch:
                try:
                    found += _profiled([function], inputs)
                except Exception as error:
                    found.append(error)
    return found


def _profiled(functions: Sequence[Function], inputs: Sequence[jax.Array]) -> list[float]:
    from jax.experimental.mosaic.gpu import profiler

    def chained(*args: Any) -> list[Any]:
        outputs: list[Any] = []
        for function in functions:
            if outputs:
                outputs[-1], args = jax.lax.optimization_barrier((outputs[-1], args))
            outputs.append(function(*args))
        return outputs

    run = jax.jit(chained)
    jax.block_until_ready(run(*inputs))
    measured: Any = profiler.measure(run, aggregate=False, iterations=ITERATIONS)(*inputs)[1]
    if any(len(kernels) != len(functions) for kernels in measured):
        raise RuntimeError(
            f"{len(functions)} kernels were launched, {[len(k) for k in measured]} were seen"
        )
    rows = np.array([[milliseconds for _, milliseconds in kernels] for kernels in measured])
    return [float(statistics.median(rows[:, n])) * 1e-3 for n in range(len(functions))]


def total_bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of these tensors together."""
    return sum(math.prod(int(s) for s in t.shape) * jnp.dtype(t.dtype).itemsize for t in tensors)
