"""The six programs of Mirage's artifact (arXiv 2405.05751), fp16 on a GPU, float32 on a CPU.

Norms are computed in float32 and cast back, without learned weights; softmax is jax's own, with its
maximum. `b` is the batch size of the artifact. The CPU rows keep the artifact's shapes where two
cores bear them; weights of the matrix products are smaller there (2048 wide).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prism_jax.bench.workload import Operand, Platform, Sample, Workload


def rms_norm(x: jax.Array) -> jax.Array:
    """x over the root mean square of its last axis, computed in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + 1e-6)).astype(x.dtype)


def l2_norm(x: jax.Array) -> jax.Array:
    """x over the length of its last axis, computed in float32."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.sum(wide * wide, -1, keepdims=True) + 1e-6)).astype(x.dtype)


def gqa(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Grouped-query attention: q (g, m, d), k (g, d, n), v (g, n, d) to (g, m, d)."""
    return jax.nn.softmax(q @ k, axis=-1) @ v


def qknorm(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The same with RMS norms of queries and keys over their features."""
    k = jnp.swapaxes(rms_norm(jnp.swapaxes(k, -1, -2)), -1, -2)
    return jax.nn.softmax(rms_norm(q) @ k, axis=-1) @ v


def rmsnorm(x: jax.Array, w: jax.Array) -> jax.Array:
    """RMS norm, then a linear layer: x (n, d), w (d, e) to (n, e)."""
    return rms_norm(x) @ w


def gatedmlp(x: jax.Array, w1: jax.Array, w2: jax.Array) -> jax.Array:
    """SwiGLU's first half: x (n, d), w1 and w2 (d, e) to (n, e)."""
    return jax.nn.silu(x @ w1) * (x @ w2)


def lora(x: jax.Array, w: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """A linear layer with a low-rank adapter: x (n, d), w (d, e), a (d, r), b (r, e) to (n, e)."""
    return x @ w + (x @ a) @ b


def ntrans(x: jax.Array, h: jax.Array, a: jax.Array) -> jax.Array:
    """The residual step of nTransformer on the unit sphere: all (n, d)."""
    return l2_norm(x + a * (l2_norm(h) - x))


def _rows(b: int, dtype: str, wide: int, platform: Platform) -> tuple[Workload, ...]:
    n, m = 2 * b, 8 * b
    # Scores of a typical layer have deviation 1: normal queries against keys over the root of d.
    heads = (
        Operand((n, 256, 64), dtype),
        Operand((n, 64, 4096), dtype, fan_in=64),
        Operand((n, 4096, 64), dtype),
    )
    queries = Sample((1, None, None), out=1)
    programs = (
        ("gqa", gqa, heads, queries, {1: 6.5, 8: 16.0, 16: 25.0}),
        ("qknorm", qknorm, heads, queries, {1: 8.0, 8: 18.0, 16: 28.0}),
        (
            "rmsnorm",
            rmsnorm,
            (Operand((n, wide), dtype), Operand((wide, wide * 3 // 2), dtype, fan_in=wide)),
            None,
            {1: 18.5, 16: 21.0},
        ),
        (
            "gatedmlp",
            gatedmlp,
            (Operand((m, wide), dtype), *2 * (Operand((wide, wide), dtype, fan_in=wide),)),
            None,
            {1: 23.5, 8: 25.0, 16: 28.0},
        ),
        (
            "lora",
            lora,
            (
                Operand((16 * b, 256), dtype),
                Operand((256, 4096), dtype, fan_in=256),
                Operand((256, 16), dtype, fan_in=256),
                Operand((16, 4096), dtype, fan_in=16),
            ),
            None,
            {1: 2.3, 8: 2.9, 16: 4.2},
        ),
        ("ntrans", ntrans, 3 * (Operand((m, 4096), dtype),), None, {1: 1.95, 8: 2.2, 16: 2.4}),
    )
    return tuple(
        Workload(
            suite="mirage",
            name=name,
            size=f"b={b}",
            function=function,
            operands=operands,
            platforms=(platform,),
            sample=sample,
            target_us=targets.get(b) if platform == "gpu" else None,
        )
        for name, function, operands, sample, targets in programs
    )


ROWS = (
    *(row for b in (1, 8, 16) for row in _rows(b, "float16", 4096, "gpu")),
    *_rows(1, "float32", 2048, "cpu"),
)
