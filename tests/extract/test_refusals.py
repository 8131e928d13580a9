"""What cannot be lifted is refused by one sentence that names the primitive and the reason."""

from __future__ import annotations

from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from prism_jax import compat
from prism_jax.extract import NotLiftable, extract, lift

X = jnp.ones((4, 6))


def _callback(x: Any) -> Any:
    return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def _print(x: Any) -> Any:
    jax.debug.print("{}", x)
    return x * 2


REFUSED = {
    "cumsum has no rule": lambda x: jnp.cumsum(x, 1),
    "sort has no rule": lambda x: jnp.sort(x),
    "top_k has no rule": lambda x: lax.top_k(x, 2),
    "scatter-add has no rule": lambda x: x.at[jnp.array([0, 0])].add(1.0),
    "fft has no rule": lambda x: jnp.fft.rfft(x).real,
    "complex64, which programs do not have": lambda x: (x + jnp.ones(6, jnp.complex64)).real,
    "conv_general_dilated has no rule": lambda x: jnp.convolve(x[0], x[1]),
    "cholesky has no rule": lambda x: jnp.linalg.cholesky(x @ x.T),
    "scan has no rule": lambda x: lax.scan(lambda c, y: (c, y), 0.0, x),
    "while has no rule": lambda x: lax.while_loop(lambda y: y.sum() < 0, lambda y: y, x),
    "cond has no rule": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "random_seed has no rule": lambda x: jax.random.uniform(jax.random.key(0), x.shape),
    "pure_callback has no rule": _callback,
    "debug_": _print,
    "reduce_window": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "VALID"),
    "optimization_barrier has no rule": lambda x: lax.optimization_barrier(x),
    "pad has interior padding": lambda x: lax.pad(x, 0.0, ((0, 0, 1), (0, 0, 0))),
    "no common factors": lambda x: x.reshape(3, 8),
    "works on the bits": lambda x: lax.reduce_and(x.astype(jnp.int32), (0,)),
    "without elements": lambda x: jnp.zeros((0, 6)) * x[:1],
}


@pytest.mark.parametrize("sentence", sorted(REFUSED))
def test_refused(sentence: str) -> None:
    closed = jax.make_jaxpr(REFUSED[sentence])(X)
    with pytest.raises(NotLiftable) as refusal:
        lift(closed, "f")
    assert sentence in str(refusal.value)
    cut = extract(closed, None, "f")
    assert any(sentence in reason for reason in cut.refused)


def test_symbolic_shapes_are_refused() -> None:
    (n,) = export.symbolic_shape("n")
    closed = jax.make_jaxpr(lambda x: x * 2)(jax.ShapeDtypeStruct((n, 3), jnp.float32))
    with pytest.raises(NotLiftable, match="symbolic"):
        lift(closed, "f")


def test_an_input_without_elements_is_refused() -> None:
    closed = jax.make_jaxpr(lambda x: x)(jnp.zeros((0, 3)))
    with pytest.raises(NotLiftable, match="float32"):
        lift(closed, "f")


def test_indexing_computed_values_in_too_many_ways_is_refused() -> None:
    """Every step doubles the number of elements asked for: bounded, in time as well."""

    table = [jnp.asarray(np.random.default_rng(n).permutation(4)) for n in range(40)]

    def gathers(x: Any, *indices: Any) -> Any:
        for index in indices:
            x = x + jnp.tanh(x[index])
        return x

    closed = jax.make_jaxpr(gathers)(X[:, 0], *table)
    with pytest.raises(NotLiftable, match="in so many ways"):
        lift(closed, "f")


def test_sharded_types_are_refused() -> None:
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    closed = jax.make_jaxpr(lambda x: jax.lax.with_sharding_constraint(x, spec) * 2)(X)
    with pytest.raises(NotLiftable, match="sharding_constraint"):
        lift(closed, "f")


def test_a_call_that_closes_over_an_array_is_refused() -> None:
    """No jax of today makes such a call, but its jaxprs may have the form."""
    closed = jax.make_jaxpr(jax.jit(lambda x, table: x * table))(X, X[0])
    (eqn,) = closed.jaxpr.eqns
    body = eqn.params["jaxpr"].jaxpr
    inner = jax.extend.core.Jaxpr(
        [body.invars[1]], [body.invars[0]], body.outvars, body.eqns, debug_info=body.debug_info
    )
    call = eqn.replace(
        invars=eqn.invars[:1], params={**eqn.params, "jaxpr": compat.close(inner, [X[0]])}
    )
    outer = compat.part_of(closed, closed.jaxpr.invars[:1], closed.jaxpr.outvars, [call])
    with pytest.raises(NotLiftable, match="jit has no rule"):
        lift(outer, "f")
