"""What is handed from kernel to kernel has the user's dtype only where it is the user's value."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax.emit import lax_blocks


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T, axis=-1) @ v


def gradient(q, k, v):
    return jax.grad(lambda *a: jnp.sum(attention(*a).astype(jnp.float32)), (0, 1, 2))(q, k, v)


def norm(x, w):
    wide = x.astype(jnp.float32)
    return (x * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True)).astype(x.dtype)) @ w


CASES = {
    "attention": (attention, (256, 64), (512, 64), (512, 64)),
    "gradient": (gradient, (256, 64), (256, 64), (256, 64)),
    "norm": (norm, (16, 1024), (1024, 1024)),
}


LARGE = {"v": 300.0, "x": 300.0, "w": 0.5}


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_the_users_value_does_not_overflow(name: str) -> None:
    """softmax(s) @ v divided last: the undivided sum leaves float16 where the program does not."""
    fun, *shapes = CASES[name]
    names = list(inspect.signature(fun).parameters)
    rng = np.random.default_rng(0)
    shaped = dict(zip(names, shapes, strict=True))
    arrays = {n: jnp.asarray(rng.normal(0, 1e-3, s), jnp.float16) for n, s in shaped.items()}
    arrays |= {n: jnp.full(shaped[n], v, jnp.float16) for n, v in LARGE.items() if n in shaped}
    for output in jax.tree.leaves(fun(*arrays.values())):
        assert np.isfinite(np.asarray(output)).all(), "the program itself overflows"
    [found] = prism.search(fun, *arrays.values(), device="H100")
    handed = 0
    for graph in found.sgraphs[:: 1 if len(found.sgraphs) < 24 else 6]:
        handed += sum(s.tensor not in graph.outputs for node in graph.nodes for s in node.stores)
        sizes = {str(symbol): 64 for symbol in graph.symbols}
        outputs = lax_blocks.emit(graph, sizes).call(*(arrays[t.name] for t in graph.inputs))
        for output in outputs:
            assert np.isfinite(np.asarray(output)).all(), graph
    assert handed, "no plan hands on anything: the test has lost its subject"
