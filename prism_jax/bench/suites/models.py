"""Real JAX code that nobody here wrote: blocks and steps from installed libraries.

A row without its library is skipped and says which it needs. `oscillators` has no matrix
product at all: there is nothing to gain, and it must cost nothing.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax.bench.workload import Built, Platform, Workload


def _normal(seed: int, *shape: int) -> jax.Array:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return jnp.asarray(values)


def flax_block(seed: int, *, tokens: int, width: int, heads: int) -> Built:
    """A pre-norm transformer block of flax nnx, as a pure function of its parameters: (1, n, d)."""
    nnx: Any = importlib.import_module("flax.nnx")

    class Block(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.LayerNorm(width, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(
                num_heads=heads, in_features=width, decode=False, rngs=rngs
            )
            self.second = nnx.RMSNorm(width, rngs=rngs)
            self.gate = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
            self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
            self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x + self.attention(self.first(x))
            y = self.second(x)
            return x + self.down(nnx.silu(self.gate(y)) * self.up(y))

    graph, parameters = nnx.split(Block(nnx.Rngs(seed)))

    def block(parameters: Any, x: jax.Array) -> Any:
        return nnx.merge(graph, parameters)(x)

    return block, (nnx.to_pure_dict(parameters), _normal(seed, 1, tokens, width))


def equinox_block(seed: int, *, tokens: int, width: int, heads: int) -> Built:
    """A transformer block of equinox layers: x (n, d) to (n, d)."""
    eqx: Any = importlib.import_module("equinox")
    keys = jax.random.split(jax.random.key(seed), 3)
    layers = {
        "attention": eqx.nn.MultiheadAttention(heads, width, key=keys[0]),
        "first": eqx.nn.LayerNorm(width),
        "second": eqx.nn.LayerNorm(width),
        "mlp": eqx.nn.MLP(width, width, 4 * width, 1, jax.nn.gelu, key=keys[1]),
    }
    arrays, static = eqx.partition(layers, eqx.is_array)

    def block(arrays: Any, x: jax.Array) -> Any:
        layers = eqx.combine(arrays, static)
        y = jax.vmap(layers["first"])(x)
        x = x + layers["attention"](y, y, y)
        return x + jax.vmap(layers["mlp"])(jax.vmap(layers["second"])(x))

    return block, (arrays, _normal(seed, tokens, width))


def decode_step(seed: int, *, cache: int, width: int, heads: int) -> Built:
    """One token through attention with a key-value cache, written at a run-time position."""
    size = width // heads
    keys = jax.random.split(jax.random.key(seed), 5)
    scale = width**-0.5
    parameters = {
        name: scale * jax.random.normal(key, (width, width))
        for name, key in zip(("q", "k", "v", "o"), keys[:4], strict=True)
    }

    def step(
        parameters: dict[str, jax.Array], state: tuple[jax.Array, jax.Array], x: jax.Array, at: Any
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        q, k, v = (
            (x @ parameters[name]).reshape(x.shape[0], heads, size) for name in ("q", "k", "v")
        )
        old_keys, old_values = state
        new_keys = jax.lax.dynamic_update_slice_in_dim(old_keys, k[:, None], at, axis=1)
        new_values = jax.lax.dynamic_update_slice_in_dim(old_values, v[:, None], at, axis=1)
        scores = jnp.einsum("bhd,bshd->bhs", q, new_keys) / size**0.5
        scores = jnp.where(jnp.arange(cache) <= at, scores, -1e30)
        mixed = jnp.einsum("bhs,bshd->bhd", jax.nn.softmax(scores, axis=-1), new_values)
        return mixed.reshape(x.shape) @ parameters["o"], (new_keys, new_values)

    filled = _normal(seed + 1, 1, cache, heads, size), _normal(seed + 2, 1, cache, heads, size)
    return step, (parameters, filled, _normal(seed, 1, width), jnp.asarray(cache // 2))


def train_step(seed: int, *, batch: int, width: int) -> Built:
    """One optimiser step of a two-layer regression with optax's Adam."""
    optax: Any = importlib.import_module("optax")
    optimiser = optax.adam(1e-3)
    first, second = jax.random.split(jax.random.key(seed))
    parameters = {
        "in": width**-0.5 * jax.random.normal(first, (width, 4 * width)),
        "out": (4 * width) ** -0.5 * jax.random.normal(second, (4 * width, width)),
    }

    def loss(parameters: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((jax.nn.gelu(x @ parameters["in"]) @ parameters["out"] - y) ** 2)

    def step(parameters: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(parameters, x, y)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    data = _normal(seed + 1, batch, width), _normal(seed + 2, batch, width)
    return step, (parameters, optimiser.init(parameters), *data)


def oscillators(seed: int, *, bodies: int) -> Built:
    """A thousand Euler steps of coupled oscillators in a scan: no product, nothing to gain."""

    def simulate(angles: jax.Array, speeds: jax.Array) -> jax.Array:
        def step(angles: jax.Array, _: None) -> tuple[jax.Array, None]:
            pull = jnp.sin(jnp.roll(angles, 1) - angles) + jnp.sin(jnp.roll(angles, -1) - angles)
            return angles + 0.01 * (speeds + pull), None

        return jax.lax.scan(step, angles, None, length=1000)[0]

    return simulate, (_normal(seed, bodies), _normal(seed + 1, bodies))


def _row(
    name: str,
    size: str,
    platform: Platform,
    maker: Callable[..., Built],
    requires: tuple[str, ...] = (),
    **sizes: int,
) -> Workload:
    return Workload(
        suite="models",
        name=name,
        size=size,
        platforms=(platform,),
        maker=functools.partial(maker, **sizes),
        requires=requires,
    )


def _rows(platform: Platform, tokens: int, width: int, heads: int) -> tuple[Workload, ...]:
    size, shape = f"n={tokens} d={width}", {"tokens": tokens, "width": width, "heads": heads}
    return (
        _row("flax_block", size, platform, flax_block, ("flax",), **shape),
        _row("equinox_block", size, platform, equinox_block, ("equinox",), **shape),
        _row(
            "decode_step",
            f"cache={8 * tokens} d={width}",
            platform,
            decode_step,
            cache=8 * tokens,
            width=width,
            heads=heads,
        ),
        _row(
            "train_step",
            f"n={tokens} d={width}",
            platform,
            train_step,
            ("optax",),
            batch=tokens,
            width=width,
        ),
        _row("oscillators", f"n={width}", platform, oscillators, bodies=width),
    )


ROWS = (*_rows("gpu", 1024, 1024, 16), *_rows("cpu", 128, 256, 4))
