"""Naive programs with a quadratic intermediate: what a user writes from the formula.

`causal` and its gradient keep jax's usual layout (batch, sequence, heads, features).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from prism_jax.bench.workload import Operand, Platform, Sample, Workload

SINKHORN_EPSILON = 0.05


def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal attention of (batch, sequence, heads, features) arrays, masked with a large number."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def causal_grad(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of the sum of `causal` in all three arguments."""
    total = lambda *qkv: jnp.sum(causal(*qkv).astype(jnp.float32))  # noqa: E731
    return jax.grad(total, argnums=(0, 1, 2))(q, k, v)


def rbf(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    """A Gaussian kernel sum with the expanded square: x (m, d), y (n, d), v (n, e) to (m, e)."""
    squares = jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None, :] - 2 * x @ y.T
    return jnp.exp(-squares / 2) @ v


def laplace(x: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    """A Laplacian kernel sum by broadcasting: x (m, d), y (n, d), v (n, e) to (m, e)."""
    return jnp.exp(-jnp.sum(jnp.abs(x[:, None, :] - y[None, :, :]), -1)) @ v


def sinkhorn(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
    """One Sinkhorn half-step in log space: x (m, d), y (n, d), g (n) to (m)."""
    cost = jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None, :] - 2 * x @ y.T
    eps = SINKHORN_EPSILON
    return -eps * jax.nn.logsumexp((g[None, :] - cost) / eps, axis=1)


def kmeans(x: jax.Array, c: jax.Array) -> jax.Array:
    """The nearest centre of each point: x (n, d), c (k, d) to (n) of int32."""
    squares = jnp.sum(x * x, -1)[:, None] + jnp.sum(c * c, -1)[None, :] - 2 * x @ c.T
    return jnp.argmin(squares, axis=1)


def linear_ce(h: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of a language head: h (n, d), w (d, vocabulary), labels (n) to ()."""
    logits = (h @ w).astype(jnp.float32)
    target = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - target)


def _attention(
    name: str, s: int, h: int, d: int, dtype: str, platform: Platform, target: float | None
) -> Workload:
    return Workload(
        suite="flash",
        name=name,
        size=f"s={s} h={h} d={d}",
        function=causal if name == "causal" else causal_grad,
        operands=3 * (Operand((1, s, h, d), dtype),),
        platforms=(platform,),
        sample=Sample((2, 2, 2), out=2, count=2),
        target_us=target,
    )


def _points(
    n: int, m: int, d: int, e: int, clusters: int, platform: Platform
) -> tuple[Workload, ...]:
    first = Sample((0, None, None))
    gpu = platform == "gpu"

    def row(
        name: str, size: str, function: object, operands: tuple[Operand, ...], target: float
    ) -> Workload:
        assert callable(function)
        return Workload(
            suite="flash",
            name=name,
            size=size,
            function=function,
            operands=operands,
            platforms=(platform,),
            sample=first if len(operands) == 3 else Sample((0, None)),
            target_us=target if gpu else None,
        )

    x = Operand((n, d))
    y = Operand((m, 8))
    z = Operand((m, 64), fan_in=64)
    return (
        row("rbf", f"n={n} d={d}", rbf, (x, x, Operand((n, e))), 200.0),
        row("laplace", f"n={m} d=8", laplace, (y, y, Operand((m, e))), 100.0),
        row("sinkhorn", f"n={m} d=64", sinkhorn, (z, z, Operand((m,), scale=0.1)), 80.0),
        row(
            "kmeans",
            f"n={4 * n} k={clusters}",
            kmeans,
            (Operand((4 * n, 64)), Operand((clusters, 64))),
            80.0,
        ),
    )


def _head(n: int, d: int, vocabulary: int, dtype: str, platform: Platform) -> Workload:
    return Workload(
        suite="flash",
        name="linear_ce",
        size=f"n={n} v={vocabulary}",
        function=linear_ce,
        operands=(
            Operand((n, d), dtype),
            Operand((d, vocabulary), dtype, fan_in=d),
            Operand((n,), "int32", scale=vocabulary, distribution="index"),
        ),
        platforms=(platform,),
        target_us=1366.0 if platform == "gpu" else None,
    )


ROWS = (
    _attention("causal", 4096, 16, 128, "float16", "gpu", 200.0),
    _attention("causal_grad", 2048, 16, 128, "float16", "gpu", 320.0),
    *_points(16384, 8192, 16, 8, 1024, "gpu"),
    _head(4096, 2048, 50304, "float16", "gpu"),
    _attention("causal", 2048, 4, 64, "float32", "cpu", None),
    _attention("causal_grad", 1024, 4, 64, "float32", "cpu", None),
    *_points(4096, 4096, 16, 8, 1024, "cpu"),
    _head(512, 512, 8192, "float32", "cpu"),
)
