"""Equations with inner jaxprs, rebuilt over rewritten bodies."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prism_jax import compat
from prism_jax.extract import rewrite_subjaxprs

X = jnp.asarray(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))


@jax.custom_jvp
def custom(x: Any) -> Any:
    return jnp.tanh(x)


custom.defjvp(lambda p, t: (custom(*p), 7.0 * t[0]))


@jax.custom_vjp
def custom_reverse(x: Any) -> Any:
    return jnp.tanh(x)


custom_reverse.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (5.0 * g,))

FUNCTIONS = {
    "scan": lambda x: lax.scan(lambda c, y: (jnp.tanh(c) * 2, c + y), x[0], x),
    "while": lambda x: lax.while_loop(lambda v: v.sum() < 3, lambda v: jnp.tanh(v) + 2, x),
    "cond": lambda x: lax.cond(x.sum() > 1, lambda v: jnp.tanh(v), lambda v: jnp.tanh(v) * 2, x),
    "switch": lambda x: lax.switch(2, [jnp.sin, jnp.cos, jnp.tanh], x),
    "jit": jax.jit(lambda x: jnp.tanh(x) * 2),
    "checkpoint": jax.checkpoint(lambda x: jnp.tanh(x) * 2),
    "custom_jvp": custom,
    "custom_vjp": custom_reverse,
}


def _marked(closed: compat.ClosedJaxpr) -> compat.ClosedJaxpr:
    """Every tanh plus one: rewriting must show in the value."""

    def fun(*args: Any) -> list[Any]:
        env = dict(zip(closed.jaxpr.constvars, compat.constants(closed), strict=True))
        env.update(zip(closed.jaxpr.invars, args, strict=True))
        for eqn in closed.jaxpr.eqns:
            outs = compat.bind_equation(eqn, [compat.read(env, v) for v in eqn.invars])
            outs = [o + 1 for o in outs] if eqn.primitive.name == "tanh" else outs
            env.update(zip(eqn.outvars, outs, strict=True))
        return [compat.read(env, v) for v in closed.jaxpr.outvars]

    return compat.trace_flat(fun, closed.in_avals)


def _run(closed: Any, rewrite: Any, x: Any) -> list[Any]:
    env = {closed.jaxpr.invars[0]: x}
    for eqn in closed.jaxpr.eqns:
        eqn = rewrite_subjaxprs(eqn, rewrite)
        outs = compat.bind_equation(eqn, [compat.read(env, v) for v in eqn.invars])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [compat.read(env, v) for v in closed.jaxpr.outvars]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_bodies_are_replaced(name: str) -> None:
    fun = FUNCTIONS[name]
    closed = jax.make_jaxpr(fun)(X)
    same = _run(closed, lambda body: body, X)
    for w, g in zip(jax.tree.leaves(fun(X)), same, strict=True):
        np.testing.assert_array_equal(g, w)
    for eqn in closed.jaxpr.eqns:
        assert rewrite_subjaxprs(eqn, lambda body: body) is eqn
    marked = _run(closed, _marked, X)
    changed = [np.any(a != b) for a, b in zip(marked, same, strict=True)]
    assert any(changed)
    jitted = jax.jit(lambda x: _run(closed, _marked, x))(X)
    for w, g in zip(marked, jitted, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-6)


@pytest.mark.parametrize(("name", "slope"), [("custom_jvp", 7.0), ("custom_vjp", 5.0)])
def test_rules_stay(name: str, slope: float) -> None:
    closed = jax.make_jaxpr(FUNCTIONS[name])(X)
    grad = jax.grad(lambda x: _run(closed, _marked, x)[0].sum())(X)
    np.testing.assert_allclose(grad, slope * np.ones_like(X), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.sum(),
        lambda x: x.astype(jnp.bfloat16),
        lambda x: x * np.ones((2, 3), np.float32),  # closes over an array
    ],
)
def test_bodies_that_do_not_fit_are_not_used(wrong: Any) -> None:
    (eqn,) = jax.make_jaxpr(FUNCTIONS["jit"])(X).jaxpr.eqns
    other = jax.make_jaxpr(wrong)(X)
    assert rewrite_subjaxprs(eqn, lambda body: other) is eqn
