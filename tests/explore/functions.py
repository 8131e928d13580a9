"""JAX functions whose best structure is known, small enough to evaluate every candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax.extract import lift
from prism_jax.ir.program import Program


def attention(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k, axis=-1) @ v


def qk_norm_attention(q: Any, k: Any, v: Any) -> Any:
    scale = jax.lax.rsqrt(jnp.mean(q * q, -1, keepdims=True) + 1e-6)
    return jax.nn.softmax((q * scale) @ k, axis=-1) @ v


def causal_attention(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    seen = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(seen, scores, -1e30), -1), v)


def masked_attention(scores: Any, v: Any, seen: Any) -> Any:
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1) @ v


def log_sum_exp(x: Any) -> Any:
    return jax.nn.logsumexp(x, axis=1)


def rms_norm_linear(x: Any, w: Any) -> Any:
    return (x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)) @ w


def rms_norm_mlp(x: Any, a: Any, b: Any) -> Any:
    y = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
    return (y @ a) * (y @ b)


def layer_norm_linear(x: Any, w: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)) @ w


def gated_mlp(x: Any, a: Any, b: Any) -> Any:
    return jax.nn.silu(x @ a) * (x @ b)


def lora(x: Any, w: Any, a: Any, b: Any) -> Any:
    return x @ w + (x @ a) @ b


def kernel_sum(x: Any, y: Any, v: Any) -> Any:
    return jnp.exp(-jnp.abs(x[:, None] - y[None]).sum(-1)) @ v


def nearest(x: Any, c: Any) -> Any:
    return jnp.argmin(jnp.sum(x * x, -1)[:, None] + jnp.sum(c * c, -1)[None] - 2 * x @ c.T, axis=1)


def powers_of_two(x: Any, v: Any) -> Any:
    return (2.0 ** (x - x.max(1, keepdims=True))) @ v


def max_plus(x: Any, y: Any) -> Any:
    return (x - x.max(1)[:, None] + y).max(1)


def soft_threshold_of_norm(x: Any) -> Any:
    top = jnp.abs(x).max(1, keepdims=True)
    return top[:, 0] * jnp.sqrt(((x / top) ** 2).sum(1))


SMALL: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "attention": (attention, ((2, 5, 6), (2, 6, 70), (2, 70, 7))),
    "qk_norm_attention": (qk_norm_attention, ((2, 5, 6), (2, 6, 70), (2, 70, 7))),
    "causal_attention": (causal_attention, ((1, 37, 2, 8), (1, 37, 2, 8), (1, 37, 2, 8))),
    "log_sum_exp": (log_sum_exp, ((9, 70),)),
    "rms_norm_linear": (rms_norm_linear, ((3, 70), (70, 9))),
    "rms_norm_mlp": (rms_norm_mlp, ((3, 70), (70, 9), (70, 9))),
    "layer_norm_linear": (layer_norm_linear, ((3, 70), (70, 9))),
    "gated_mlp": (gated_mlp, ((5, 70), (70, 9), (70, 9))),
    "lora": (lora, ((5, 70), (70, 9), (70, 3), (3, 9))),
    "kernel_sum": (kernel_sum, ((40, 5), (33, 5), (33, 3))),
    "nearest": (nearest, ((40, 5), (33, 5))),
    "powers_of_two": (powers_of_two, ((20, 40), (40, 3))),
    "max_plus": (max_plus, ((20, 40), (20, 40))),
    "soft_threshold_of_norm": (soft_threshold_of_norm, ((20, 40),)),
}

LARGE: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "attention": (attention, ((2, 256, 64), (2, 64, 4096), (2, 4096, 64))),
    "attention_b16": (attention, ((32, 256, 64), (32, 64, 4096), (32, 4096, 64))),
    "qk_norm_attention": (qk_norm_attention, ((2, 256, 64), (2, 64, 4096), (2, 4096, 64))),
    "log_sum_exp": (log_sum_exp, ((4096, 8192),)),
    "rms_norm_linear": (rms_norm_linear, ((16, 4096), (4096, 6144))),
    "rms_norm_mlp": (rms_norm_mlp, ((8, 4096), (4096, 4096), (4096, 4096))),
    "layer_norm_linear": (layer_norm_linear, ((16, 4096), (4096, 6144))),
    "gated_mlp": (gated_mlp, ((8, 4096), (4096, 4096), (4096, 4096))),
    "lora": (lora, ((16, 256), (256, 4096), (256, 16), (16, 4096))),
    "kernel_sum": (kernel_sum, ((8192, 8), (8192, 8), (8192, 8))),
    "nearest": (nearest, ((65536, 64), (1024, 64))),
}


def program(name: str, large: bool = False, dtype: Any = jnp.float32) -> Program:
    """The function of that name as a program."""
    function, shapes = (LARGE if large else SMALL)[name]
    return lift(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, dtype) for s in shapes)), name)
