"""Which algebraic forms are searched: those that read what the program reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from prism_jax import device, explore
from prism_jax.egraph import extract
from prism_jax.extract import lift
from prism_jax.options import Options

H100 = device.row("H100")
X, W = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 48), jnp.float32)


def shares(x: Any, w: Any) -> Any:
    return jnp.sum(jax.nn.softmax(x @ w, 1), 1)


def nothing(x: Any, w: Any) -> Any:
    return (x @ w - x @ w).sum(1) + x[:, 0]


@pytest.mark.parametrize("function", [shares, nothing])
def test_no_form_forgets_an_input(function: Callable[..., Any]) -> None:
    """The sum of a softmax's row is 1 only where all is finite: NaN must not be hidden."""
    program = lift(jax.make_jaxpr(function)(X, W), function.__name__)
    read = explore.inputs_read(program)
    assert read == [frozenset(tensor.name for tensor in program.inputs)]
    shorter = [f for f in extract.search(program, H100) if explore.inputs_read(f.program) != read]
    assert shorter, "no axiom drops an input any more: this test is not needed"
    found = explore.explore(program, H100, Options())
    assert found.candidates
    for candidate in found.candidates:
        assert explore.inputs_read(candidate.form) == read
        assert {t.name for t in candidate.sgraph.inputs} == set(read[0])
