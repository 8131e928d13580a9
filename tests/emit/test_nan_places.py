"""A NaN is the best there is, wherever it stands and however the axis is cut into blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import device
from prism_jax.emit import emit
from prism_jax.explore import Form, search
from prism_jax.extract import lift
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.rank import Ranking

H100 = device.row("H100")
X, C = (np.random.default_rng(0).normal(size=s).astype(np.float32) for s in ((512, 8), (513, 8)))


def nearest(x: Any, c: Any) -> Any:
    return jnp.argmin(jnp.sum(jnp.abs(x[:, None] - c[None]), -1), 1)


def best(x: Any, c: Any) -> Any:
    return jnp.argmax(x @ c.T, -1)


def distances(x: Any, c: Any) -> Any:
    return -np.abs(x[:, None] - c[None]).sum(-1)


def scores(x: Any, c: Any) -> Any:
    return x @ c.T


@pytest.mark.parametrize(("function", "values"), [(nearest, distances), (best, scores)])
def test_the_first_nan_is_found(
    function: Callable[..., Any], values: Callable[..., np.ndarray]
) -> None:
    """XLA's own maximum may pass over it where it is fused into a loop."""
    program = lift(jax.make_jaxpr(function)(X, C), function.__name__)
    found = search(program, [Form(program)], H100, 2.0)
    whole = [c for c in found.candidates if c.kernels == len(c.sgraph.nodes) == 1]
    assert whole
    checked = 0
    for candidate in whole:
        rows = list(Ranking(candidate.sgraph.kernels[0], H100, {}).rows)
        finest = min(rows, key=lambda sizes: sum(size for _, size in sizes))
        for sizes in (rows[0], finest):
            plan = Plan(candidate.sgraph, "lax", "CPU", sizes, (Schedule(),))
            run = jax.jit(emit(plan).call)
            for places in ((), (0,), (77,), (512,), (300, 5, 77)):
                c = C.copy()
                c[list(places)] = np.nan
                with np.errstate(invalid="ignore"):
                    wanted = np.argmax(values(X, c), 1)  # numpy's rule is jax's
                np.testing.assert_array_equal(run(X, c)[0], wanted, f"{sizes} {places}")
                checked += 1
    assert checked >= 10
