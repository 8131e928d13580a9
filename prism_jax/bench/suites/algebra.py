"""Programs that only a rewrite saves: no schedule of the program as written comes near.

The same functions run on a GPU (half precision where a model would) and on a CPU (float32).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prism_jax.bench.workload import Operand, Platform, Sample, Workload


def lowrank(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """A low-rank weight put together before it is used: x (n, d), a (d, r), b (r, e) to (n, e)."""
    return x @ (a @ b)


def linear_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention without softmax: q, k (n, d), v (n, e) to (n, e)."""
    return (q @ k.T) @ v


def pairwise(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared distances by broadcasting: x (m, d), y (n, d) to (m, n)."""
    return jnp.sum((x[:, None] - y[None]) ** 2, -1)


def scaled_rows(x: jax.Array, s: jax.Array, w: jax.Array) -> jax.Array:
    """Rows divided before a product: x (n, d), s (n, 1), w (d, e) to (n, e)."""
    return (x / s) @ w


def scaled_columns(x: jax.Array, c: jax.Array, w: jax.Array) -> jax.Array:
    """Columns scaled before a product: x (n, d), c (d), w (d, e) to (n, e)."""
    return (x * c) @ w


def shared(
    x: jax.Array, wq: jax.Array, wk: jax.Array, wv: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Three products of one matrix: x (n, d), weights (d, e) to three (n, e)."""
    return x @ wq, x @ wk, x @ wv


def _rows(platform: Platform, half: str, points: int, keys: int, rows: int) -> tuple[Workload, ...]:
    tall = Operand((keys, 64), half)
    cloud = Operand((points, 64))
    matrix, square = Operand((rows, 1024)), Operand((1024, 1024), fan_in=1024)
    projection = Operand((4096, 1024), half, fan_in=4096)
    table = (
        (
            "lowrank",
            "r=16",
            lowrank,
            (
                Operand((16, 4096), half),
                Operand((4096, 16), half, fan_in=4096),
                Operand((16, 4096), half, fan_in=16),
            ),
            None,
        ),
        (
            "linear_attention",
            f"n={keys} d=64",
            linear_attention,
            # Scores of order 1/8, summed over thousands of keys, stay inside half precision.
            (Operand((keys, 64), half, fan_in=64), Operand((keys, 64), half, fan_in=64), tall),
            Sample((0, None, None)),
        ),
        ("pairwise", f"n={points} d=64", pairwise, (cloud, cloud), Sample((0, None))),
        (
            "scaled_rows",
            f"n={rows} d=1024",
            scaled_rows,
            (matrix, Operand((rows, 1), distribution="positive"), square),
            Sample((0, 0, None)),
        ),
        (
            "scaled_columns",
            f"n={rows} d=1024",
            scaled_columns,
            (matrix, Operand((1024,), distribution="positive"), square),
            Sample((0, None, None)),
        ),
        (
            "shared",
            "n=8 d=4096",
            shared,
            (Operand((8, 4096), half), projection, projection, projection),
            None,
        ),
    )
    return tuple(
        Workload(
            suite="algebra",
            name=name,
            size=size,
            function=function,
            operands=operands,
            platforms=(platform,),
            sample=sample,
        )
        for name, size, function, operands, sample in table
    )


ROWS = (*_rows("gpu", "float16", 4096, 8192, 4096), *_rows("cpu", "float32", 2048, 4096, 1024))
