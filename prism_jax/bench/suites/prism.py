"""The five programs of Prism's driver (arXiv 2604.15272), fp16 on a GPU, float32 on a CPU.

Square matrices, norms without weights, and heads folded into the sequence, as there.
"""

from __future__ import annotations

import jax

from prism_jax.bench.suites.mirage import gatedmlp as swiglu
from prism_jax.bench.suites.mirage import rms_norm, rmsnorm
from prism_jax.bench.workload import Operand, Platform, Sample, Workload


def rmsnorm_mlp(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Two linear layers of one RMS norm, multiplied: x (n, d), a and b (d, d) to (n, d)."""
    y = rms_norm(x)
    return (y @ a) * (y @ b)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """q (b, m, d), k (b, d, n), v (b, n, d) to (b, m, d)."""
    return jax.nn.softmax(q @ k, axis=-1) @ v


def qk_norm_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The same with an RMS norm of the queries only."""
    return jax.nn.softmax(rms_norm(q) @ k, axis=-1) @ v


def _linear(n: int, d: int, dtype: str, platform: Platform) -> tuple[Workload, ...]:
    x, w = Operand((n, d), dtype), Operand((d, d), dtype, fan_in=d)
    programs = (
        ("rms_norm", rmsnorm, (x, w)),
        ("rmsnorm_mlp", rmsnorm_mlp, (x, w, w)),
        ("swiglu", swiglu, (x, w, w)),
    )
    return tuple(
        Workload(
            suite="prism",
            name=name,
            size=f"n={n} d={d}",
            function=function,
            operands=operands,
            platforms=(platform,),
        )
        for name, function, operands in programs
    )


def _attention(
    b: int, h: int, q: int, kv: int, dtype: str, platform: Platform
) -> tuple[Workload, ...]:
    operands = (
        Operand((b, h * q, 128), dtype),
        Operand((b, 128, h * kv), dtype, fan_in=128),
        Operand((b, h * kv, 128), dtype),
    )
    programs = (("attention", attention), ("qk_norm_attention", qk_norm_attention))
    return tuple(
        Workload(
            suite="prism",
            name=name,
            size=f"b={b} h={h} q={q} kv={kv}",
            function=function,
            operands=operands,
            platforms=(platform,),
            sample=Sample((1, None, None), out=1),
        )
        for name, function in programs
    )


_LINEAR = ((8, 1024), (8, 2048), (8, 4096), (16, 1024), (16, 4096))
_ATTENTION = ((2, 8, 1, 1024), (2, 8, 128, 1024), (2, 32, 1, 1024), (4, 8, 1, 1024))
ROWS = (
    *(row for n, d in _LINEAR for row in _linear(n, d, "float16", "gpu")),
    *(row for sizes in _ATTENTION for row in _attention(*sizes, "float16", "gpu")),
    *_linear(8, 1024, "float32", "cpu"),
    *_attention(2, 8, 1, 1024, "float32", "cpu"),
)
